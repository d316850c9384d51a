# SPDX-License-Identifier: Apache-2.0
"""Augmentation: what it does to an image, and that its random numbers belong to the sample."""

import numpy as np
import torch

from mcuformer.nas import augment
from mcuformer.nas.augment import Draw, uniform


def test_random_numbers_are_uniform_and_belong_to_seed_epoch_draw_and_index():
    indices = np.arange(20_000)
    u = uniform(3, 5, indices, Draw.FLIP)
    assert ((u >= 0) & (u < 1)).all() and abs(u.mean() - 0.5) < 0.01 and abs(u.std() - 12**-0.5) < 0.01
    assert len(np.unique(u)) == len(u)
    np.testing.assert_array_equal(uniform(3, 5, indices[::-7], Draw.FLIP), u[::-7])
    for other in [
        uniform(4, 5, indices, Draw.FLIP),
        uniform(3, 6, indices, Draw.FLIP),
        uniform(3, 5, indices, Draw.DOWN),
    ]:
        assert abs(np.corrcoef(u, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.03


def test_shifts_and_mirrors_each_image_and_repeats_edges():
    image = torch.arange(48, dtype=torch.uint8).reshape(4, 4, 3)
    padded = image.repeat_interleave(torch.tensor([2, 1, 1, 2]), 0)
    padded = padded.repeat_interleave(torch.tensor([2, 1, 1, 2]), 1)
    shifts = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    legal = {x.numpy().tobytes() for x in shifts}
    mirrored = {x.flip(1).numpy().tobytes() for x in shifts}

    batch, indices = image.expand(400, 4, 4, 3), np.arange(400)
    assert {x.numpy().tobytes() for x in augment.shift_and_flip(batch, indices, 1, False, 0, 0)} == legal
    assert {x.numpy().tobytes() for x in augment.shift_and_flip(batch, indices, 1, True, 0, 0)} == legal | mirrored
    assert torch.equal(augment.shift_and_flip(batch, indices, 0, False, 0, 0), batch)


def test_a_rectangle_is_shifted_by_its_own_sides_and_cropped_in_its_shape():
    image = torch.arange(32, dtype=torch.uint8).reshape(2, 16, 1)
    batch, indices = image.expand(300, 2, 16, 1), np.arange(300)
    for shift, moved in (
        ((0, 2), [image.roll(-s, 1) for s in range(-2, 3)]),
        ((1, 0), [image, image[[0, 0]], image[[1, 1]]]),
    ):
        inner = slice(2, 14)  # where no edge is repeated
        legal = {x[:, inner].numpy().tobytes() for x in moved}
        got = augment.shift_and_flip(batch, indices, shift, False, 0, 0)
        assert {x[:, inner].numpy().tobytes() for x in got} == legal
    ramp = (torch.linspace(0, 1, 8)[:, None] + 10 * torch.linspace(0, 1, 32)).expand(50, 1, 8, 32)
    cropped = augment.random_crop(ramp, indices[:50], 0.25, 0, 0)
    high, wide = cropped[:, 0, -1, 0] - cropped[:, 0, 0, 0], (cropped[:, 0, 0, -1] - cropped[:, 0, 0, 0]) / 10
    torch.testing.assert_close(high, wide, rtol=0, atol=0.15)  # the same share of both sides, but for the edges


def test_a_part_of_a_batch_is_augmented_as_in_the_whole():
    images = torch.rand((12, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    indices, half = np.arange(40, 52), slice(3, 9)
    for call in (
        lambda x, i: augment.shift_and_flip(x, i, 2, True, 7, 1),
        lambda x, i: augment.random_crop(x, i, 0.3, 7, 1),
        lambda x, i: augment.mix(x, x.flip(3), i, 0.5, 0.5, 7, 1)[0],
    ):
        torch.testing.assert_close(call(images[half], indices[half]), call(images, indices)[half], rtol=0, atol=1e-6)


def test_a_crop_of_all_is_the_image_and_a_small_one_is_a_part():
    ramp = torch.linspace(0, 1, 32).expand(50, 1, 32, 32)
    indices = np.arange(50)
    torch.testing.assert_close(augment.random_crop(ramp, indices, 1.0, 0, 0), ramp, rtol=0, atol=1e-5)
    cropped = augment.random_crop(ramp, indices, 0.25, 0, 0)
    span = cropped[:, 0, 0, -1] - cropped[:, 0, 0, 0]
    assert (span > 0.45).all() and (span < 1.01).all() and span.std() > 0.05
    assert cropped[:, 0, 0, 0].std() > 0.05


def test_mixing_keeps_count_of_what_is_whose():
    ones, zeros, indices = torch.ones(300, 1, 16, 16), torch.zeros(300, 1, 16, 16), np.arange(300)
    blended, share = augment.mix(ones, zeros, indices, 1.0, 0.0, 0, 0)
    torch.testing.assert_close(blended.mean(dim=(1, 2, 3)), share, rtol=0, atol=1e-5)
    pasted, share = augment.mix(ones, zeros, indices, 0.0, 1.0, 0, 0)
    assert set(pasted.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(pasted.mean(dim=(1, 2, 3)), share, rtol=0, atol=1e-5)
    same, share = augment.mix(ones, zeros, indices, 0.0, 0.0, 0, 0)
    assert torch.equal(same, ones) and torch.equal(share, torch.ones(300))
    some, share = augment.mix(ones, zeros, indices, 0.2, 0.3, 0, 0)
    assert 0.35 < (share < 1).float().mean() < 0.65


def test_what_is_not_mixed_stays_as_it_is():
    images, indices = torch.rand((200, 3, 8, 8), generator=torch.Generator().manual_seed(0)), np.arange(200)
    mixed, share = augment.mix(images, images.flip(0), indices, 0.3, 0.3, 0, 0)
    alone = share == 1
    assert 40 < alone.sum() < 120 and torch.equal(mixed[alone], images[alone])
    assert (mixed[~alone] != images[~alone]).flatten(1).any(1).all()


def test_partners_are_neighbours_and_even_parts_of_a_batch_have_the_same():
    whole = augment.partners(12)
    assert whole.tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]
    assert torch.equal(torch.cat([augment.partners(6), 6 + augment.partners(6)]), whole)
    assert augment.partners(5).tolist() == [1, 0, 3, 2, 4] and augment.partners(1).tolist() == [0]


def test_crops_of_files_belong_to_the_sample_and_have_shares_and_shapes():
    indices = np.arange(500)
    found, some = augment.crops(indices, 0.25, True, 3, 1), indices[100:110]
    assert augment.crops(some, 0.25, True, 3, 1) == found[100:110] != augment.crops(some, 0.25, True, 3, 2)
    assert 200 < sum(crop.mirrored for crop in found) < 300
    assert not any(crop.mirrored for crop in augment.crops(indices, 0.25, False, 3, 1))
    areas, aspects = np.array([c.area for c in found]), np.array([c.aspect for c in found])
    assert 0.25 <= areas.min() < 0.27 and 0.98 < areas.max() < 1
    assert 0.75 <= aspects.min() < 0.76 and 1.32 < aspects.max() < 4 / 3 and abs(np.log(aspects).mean()) < 0.02
