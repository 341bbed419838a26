# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is said to people in one line: warnings of ours and errors; imports nothing slow."""

from __future__ import annotations

import warnings

_PACKAGE = __name__.partition('.')[0]
_python_format = warnings.formatwarning


class Remark(UserWarning):
    """Something that works, but not as well as it could."""


def one_line(error: BaseException) -> str:
    """Return the text of an error on one line; its kind where it has no text."""
    return ' '.join(str(error).split()) or type(error).__name__


def speak_as(program: str) -> None:
    """Show warnings of this package from now on as lines of `program`; others stay as they are."""

    def format_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if category.__module__.startswith(f'{_PACKAGE}.'):
            return f'{program}: warning: {message}\n'
        return _python_format(message, category, filename, lineno, line)

    warnings.formatwarning = format_warning
