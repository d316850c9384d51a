# SPDX-License-Identifier: Apache-2.0
"""The errors that a user can cause.

Each message is one line that names the thing (file, option, tensor), its value, and what to do about it. The
command line prints only the message; anything that is not a McuformerError is a bug and keeps its traceback.
"""


class McuformerError(ValueError):
    """Base of all errors that the user's input can cause. A value with line breaks leaves its message one line."""

    def __init__(self, message: object = ""):
        super().__init__(" ".join(map(str.strip, str(message).splitlines())))


class DataError(McuformerError):
    """Images or labels are missing, damaged or of the wrong format."""


class ConfigError(McuformerError):
    """An option, a board name or a network description makes no sense."""


class ModelError(McuformerError):
    """A saved network or a .tflite model is damaged, foreign or holds unusable values."""


class PlanError(McuformerError):
    """A model does not fit its memory, or a memory plan is not valid."""


class ToolchainError(McuformerError):
    """A compiler, a library or the interpreter is missing or of an unknown version."""


class McuformerWarning(UserWarning):
    """Something that works, with less certainty than the user may think: one line, as an error has."""
