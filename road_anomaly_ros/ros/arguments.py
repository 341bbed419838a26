# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The words of a command line: which are for ROS, and what ROS would refuse or pass over.

Imports no ROS: what is wrong is said before anything slow begins.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

BEGIN, END = '--ros-args', '--'
_FILE = '--params-file'


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words that are not for ROS and those that are, without the marks between them."""
    own: list[str] = []
    ros: list[str] = []
    target = own
    for word in words:
        if word == BEGIN:
            target = ros
        elif word == END and target is ros:
            target = own
        else:
            target.append(word)
    return own, ros


def params_files(words: Sequence[str]) -> list[Path]:
    """Return the files of parameters that a command line names."""
    _, ros = split(words)
    return [Path(value) for word, value in itertools.pairwise(ros) if word == _FILE]


def without_log_file() -> list[str]:
    """Return the words by which ROS keeps no log file, where the folder for it cannot be written.

    Without them a node on a read-only disk would not start.
    """
    home = os.environ.get('ROS_HOME') or '~/.ros'
    folder = Path(os.environ.get('ROS_LOG_DIR') or f'{home}/log').expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    return [] if writable else [BEGIN, '--disable-external-lib-logs', END]


def refuse_stray(name: str, words: Sequence[str]) -> None:
    """Raise ValueError for words that a node which takes ROS arguments only would pass over."""
    own, _ = split(words)
    stray = own[1:] if own[:1] == [name] else own
    if not stray:
        return
    option, _, value = stray[0].lstrip('-').partition('=')
    value = value or (stray[1] if len(stray) > 1 else 'VALUE')
    named = re.fullmatch(r'--?[A-Za-z][\w.]*', stray[0].partition('=')[0])
    example = f'{option}:={value}' if named else 'NAME:=VALUE'
    raise ValueError(
        f'unexpected argument {stray[0]!r}: parameters are given as '
        f"'{name} {BEGIN} -p {example}'; see '{name} --help'"
    )


def explain(error: Exception) -> str:
    """Return what is wrong with the arguments for ROS; empty where the error is another one."""
    text = str(error)
    unread = re.search(r"Couldn't parse (.+?)(?:\. Error|\. No |, at /|$)", text)
    if type(error).__name__ == 'UnknownROSArgsError':
        what = f'unknown {text}'
    elif unread:
        what = f'cannot read the {unread[1]}'
    else:
        return ''
    return (
        f"{what}; expected words such as '-p scorer:=rba', '-r image:=/camera/image_raw' or "
        f"'--params-file FILE' after {BEGIN}"
    )
