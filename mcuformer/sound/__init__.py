# SPDX-License-Identifier: Apache-2.0
"""Sound as images: the log-mel front end that a microcontroller runs in front of a network.

front_end = LogMel()                       # 98 frames of 25 ms, 40 mels
images = [front_end.image(samples)]        # the specification, in numpy
stream = LogMelStream(front_end)           # the C, bit for bit the same
rows = stream.push(samples)
"""

from mcuformer.sound.log_mel import LogMel
from mcuformer.sound.stream import LogMelStream

__all__ = ["LogMel", "LogMelStream"]
