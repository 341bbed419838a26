# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where obstacles end at the bottom: the line on which they touch the road."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.int64]
_RAGGED = 0.05  # share of the columns of an outline that may stick out below


@dataclass(frozen=True)
class ContactLine:
    """The lowest pixel of every obstacle in each of its columns, m of them, and n obstacles.

    The columns of one obstacle stand together, in order: those of obstacle i from `begin[i]` on.
    """

    owner: Table  # [m] 0 .. n-1
    column: Table  # [m]
    row: Table  # [m]
    ids: Table  # [n] number in the map of instances, rising
    begin: Table  # [n]

    def __len__(self) -> int:
        return len(self.ids)


def contact_line(instances: NDArray[np.int32]) -> ContactLine:
    """Return the lower edge of each number above 0 in a map [H, W]."""
    lower = instances > 0
    lower[:-1] &= instances[:-1] != instances[1:]
    rows, columns = np.nonzero(lower)
    numbers = instances[rows, columns].astype(np.int64)
    order = np.lexsort((rows, columns, numbers))
    rows, columns, numbers = rows[order], columns[order], numbers[order]
    last = np.ones(len(order), bool)
    last[:-1] = (numbers[1:] != numbers[:-1]) | (columns[1:] != columns[:-1])
    ids, begin, owner = np.unique(numbers[last], return_index=True, return_inverse=True)
    return ContactLine(
        owner.reshape(-1).astype(np.int64),
        columns[last].astype(np.int64),
        rows[last].astype(np.int64),
        ids,
        begin.astype(np.int64),
    )


def feet(line: ContactLine) -> tuple[Table, NDArray[np.float64]]:
    """Return row [n] and column [n] of where each obstacle stands nearest.

    That is the lowest row of its outline, without the few columns that stick out below.
    """
    count = np.bincount(line.owner, minlength=len(line))
    order = np.lexsort((-line.row, line.owner))
    row = line.row[order][line.begin + (_RAGGED * count).astype(np.int64)]
    lowest = line.row >= row[line.owner]
    owner = line.owner[lowest]
    column = np.bincount(owner, line.column[lowest], len(line)) / np.bincount(
        owner, minlength=len(line)
    )
    return row, column
