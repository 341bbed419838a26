# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of a report that hold figures: answer, tables, curves, sweeps, time, failure modes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from road_anomaly_ros.evaluation import charts, reference, sweep
from road_anomaly_ros.evaluation.material import Group, Material, Row, trained
from road_anomaly_ros.evaluation.page import Cell, figure, folded, grid, heading, paragraph, table
from road_anomaly_ros.evaluation.results import METRICS

_LOW_IS_GOOD = ('FPR95',)
_COLORED = 6  # curves in colour; more hide each other
_FIRST_ROWS = 12  # of a long table; the rest folds away
_LOWEST_RATE = 1e-4  # where the ROC curve begins
_CHART = (500, 360)


def summary(material: Material) -> str:
    """Return the answer in a sentence per data set, and its best methods."""
    parts = []
    for group in material.groups:
        parts.append(f'<div class="answer">{paragraph(answer(group))}</div>')
        rows = contenders(group)
        if len(rows) > 1:
            parts.append(
                table(
                    ['', *_columns(rows)],
                    _cells(rows, _columns(rows)),
                    (
                        f'{group.name}: the best methods of different scores, in percent. AP, '
                        'AUROC, FPR95: pixels; sIoU, PPV, F1: obstacles. All figures: Results.'
                    ),
                )
            )
    for document in material.sweeps:
        parts.append(paragraph(sweep_answer(document)))
    return ''.join(parts) or paragraph('The results hold no rows.')


def answer(group: Group) -> str:
    """Return what was found out about one data set, as a sentence."""
    rated = [row for row in group.rows if row.figure('AP') is not None]
    if not rated:
        known = [row for row in group.rows if row.figure('mIoU') is not None]
        if not known:
            return f'{group.name}: no figure is defined; see the labels.'
        return (
            f'{group.name}: the model names the classes with a mean IoU of '
            f'{known[0].figure("mIoU"):.1f} %.'
        )
    best = rated[0]
    text = (
        f'{group.name}: {best.label} finds anomalies best, AP {best.figure("AP"):.1f} %'
        f'{_times_chance(group, best)}; to catch 95 % of their pixels it takes '
        f'{best.figure("FPR95"):.1f} % of the ordinary ones for anomalies too'
    )
    count, found = _objects(best)
    if count:
        text += (
            f'. At its best threshold it finds {found} of {count} obstacles, with {_alarms(best)}'
        )
    untrained = next((row for row in rated if not trained(row.scorer)), None)
    if trained(best.scorer) and untrained is not None:
        text += (
            f'. Best without training on anomalies: {untrained.label}, AP '
            f'{untrained.figure("AP"):.1f} %'
        )
    return text + '.'


def _times_chance(group: Group, row: Row) -> str:
    if not group.chance:
        return ''
    return f' ({(row.figure("AP") or 0) / group.chance:.0f} times chance)'


def _objects(row: Row) -> tuple[int, int]:
    cells = row.found.get('objects', {}).get('cells', ())
    return sum(cell['count'] for cell in cells), sum(cell['found'] for cell in cells)


def _alarms(row: Row) -> str:
    frames, total = row.found.get('frames', ()), row.found.get('frame_count', 0)
    if not total or len(frames) < total:
        return f'a PPV of {row.figure("PPV"):.0f} %'
    return f'{sum(frame["alarms"] for frame in frames) / total:.1f} false obstacles per frame'


def contenders(group: Group, count: int = _COLORED) -> list[Row]:
    """Return the best rows of different scores."""
    chosen: dict[str, Row] = {}
    for row in group.rows:
        chosen.setdefault(row.scorer, row)
    return list(chosen.values())[:count]


def _columns(rows: Sequence[Row]) -> list[str]:
    return [name for name in METRICS if any(row.figure(name) is not None for row in rows)]


def _cells(rows: Sequence[Row], columns: Sequence[str]) -> Iterator[list[str | Cell]]:
    best = {
        name: (min if name in _LOW_IS_GOOD else max)(
            row.figure(name) for row in rows if row.figure(name) is not None
        )
        for name in columns
    }
    equal = {name for name in columns if len({row.figure(name) for row in rows}) == 1}
    for row in rows:
        yield [
            row.label,
            *(
                Cell(
                    number(row.figure(name)),
                    'best' if row.figure(name) == best[name] and name not in equal else '',
                )
                for name in columns
            ),
        ]


def number(value: float | None) -> str:
    """Return a figure of a table; a dash where it is undefined."""
    return '–' if value is None else f'{value:.2f}'


def tables(material: Material) -> str:
    """Return all rows of all data sets."""
    parts = []
    for group in material.groups:
        columns = _columns(group.rows)
        lines = [
            [*cells, str(group.frames), _milliseconds(row)]
            for cells, row in zip(_cells(group.rows, columns), group.rows, strict=True)
        ]
        heads = ['method', *columns, 'frames', 'ms / frame']
        parts += [
            heading(group.name),
            paragraph(_pooled(group), 'small'),
            table(heads, lines[:_FIRST_ROWS]),
        ]
        if len(lines) > _FIRST_ROWS:
            parts.append(
                folded(
                    f'the other {len(lines) - _FIRST_ROWS} methods',
                    table(heads, lines[_FIRST_ROWS:]),
                )
            )
    return ''.join(parts) + paragraph(
        'In percent; the best of each column is shaded. AP: area under precision over recall. '
        'FPR95: share of ordinary pixels above the threshold that keeps 95 % of the anomalies; '
        'lower is better. sIoU, PPV and F1: obstacles as in SegmentMeIfYouCan, at the threshold '
        'of the best pixel F1. ms / frame: network, score and refinements, median, measured '
        'while several methods ran.',
        'small',
    )


def _milliseconds(row: Row) -> str:
    """Return the sum of the stages' medians: the first frame would spoil the mean."""
    spent = [stage['p50'] for stage in row.found.get('stages', {}).values()]
    return f'{sum(spent):.1f}' if spent else '–'


def _pooled(group: Group) -> str:
    pixels = group.run.get('pixels', {})
    known = pixels.get('inlier', 0) + pixels.get('anomaly', 0)
    if not known:
        return 'No anomaly labels: only classes were measured.'
    chance = f', so that the AP of chance is {group.chance:.2f} %' if group.chance else ''
    record = group.rows[0].record
    return (
        f'Layout {group.run.get("layout")}; {known:,} labelled pixels of all images pooled, '
        f'{pixels["anomaly"]:,} of them anomalies{chance}; {pixels.get("ignored", 0):,} are '
        f'ignored. Exact, no binning. Obstacles count from {record.get("min_gt_size")} px, '
        f'predictions from {record.get("min_pred_size")} px.'
    )


def published(material: Material) -> str:
    """Return measured figures beside the printed ones, or the printed ones for orientation."""
    cells = reference.load()
    return ''.join(
        _published_of(group, cells)
        for group in material.groups
        if any(
            row.figure('AP') is not None or group.run.get('layout') == 'cityscapes'
            for row in group.rows
        )
    )


def _published_of(group: Group, cells: Sequence[reference.Cell]) -> str:
    layout = str(group.run.get('layout', ''))
    here = [cell for cell in cells if cell.data == layout]
    if not here:
        return (
            heading(group.name)
            + paragraph(
                f'No paper prints figures of the layout {layout!r}. For orientation, what they '
                'print for the same methods on their data sets, with larger models; the two kinds '
                'of figures are not comparable.',
                'small',
            )
            + _orientation(group, cells)
        )
    metrics = [name for name in METRICS if any(cell.metric == name for cell in here)]
    lines: list[list[str | Cell]] = []
    apart = []
    for row in group.rows:
        ours = (number(row.figure(name)) for name in metrics)
        lines.append([row.label, Cell('measured here', 'text'), *ours])
        rivals = _by_row([cell for cell in here if cell.chain == row.chain])
        for (where, name), values in rivals.items():
            apart.append(len(lines))
            theirs = (_beside(values.get(metric), row.figure(metric)) for metric in metrics)
            lines.append([f'↳ {name}', Cell(where, 'text'), *theirs])
    return heading(group.name) + table(
        ['method', 'from', *metrics],
        lines,
        'In percent; in brackets how far the measured figure lies above (+) or below (-) the '
        'printed one.',
        apart,
    )


def _by_row(cells: Sequence[reference.Cell]) -> dict[tuple[str, str], dict[str, float | None]]:
    found: dict[tuple[str, str], dict[str, float | None]] = {}
    for cell in cells:
        where = f'{cell.paper}, table {cell.table}'
        found.setdefault((where, cell.row), {})[cell.metric] = cell.value
    return found


def _beside(printed: float | None, measured: float | None) -> str:
    if printed is None or measured is None:
        return number(printed)
    return f'{printed:.2f} ({measured - printed:+.1f})'


def _orientation(group: Group, cells: Sequence[reference.Cell]) -> str:
    chains = {row.chain: row for row in group.rows}
    shared = [cell for cell in cells if cell.chain in chains and cell.metric in ('AP', 'FPR95')]
    if not shared:
        return paragraph('None of these methods is in a table of the papers.', 'small')
    data = list(dict.fromkeys(cell.data for cell in shared))
    lines: dict[tuple[str, str, str], dict[tuple[str, str], float | None]] = {}
    for cell in shared:
        key = str(cell.chain), cell.row, f'{cell.paper}, table {cell.table}'
        lines.setdefault(key, {})[cell.data, cell.metric] = cell.value
    rows = [
        [
            chain,
            Cell(row, 'text'),
            Cell(where, 'text'),
            *(
                f'{number(values.get((name, "AP")))} / {number(values.get((name, "FPR95")))}'
                for name in data
            ),
        ]
        for (chain, row, where), values in sorted(lines.items())
    ]
    return folded(
        f'{len(rows)} printed rows',
        table(['method', 'row', 'paper', *data], rows, 'AP / FPR95 in percent, as printed.'),
    )


def curves(material: Material) -> str:
    """Return precision-recall and ROC curves of every data set."""
    parts = ''.join(map(_curves_of, material.groups))
    return parts and parts + paragraph(
        'Every curve is drawn through about 150 thresholds whose counts are exact, with straight '
        'lines between.',
        'small',
    )


def _curves_of(group: Group) -> str:
    drawn = [row for row in group.rows if row.found.get('curve')]
    if not drawn:
        return ''
    chosen = [row.label for row in contenders(group)]
    order = {method: place for place, method in enumerate(chosen)}
    roc = charts.line_chart(
        [
            charts.Line(row.label, curve_points(row.found)[1], order.get(row.label))
            for row in drawn
        ],
        x=charts.log(_LOWEST_RATE, 1, 'share of ordinary pixels above the threshold'),
        y=charts.percent('recall, %'),
        title='ROC',
        size=_CHART,
    )
    rest = f', {len(drawn) - len(chosen)} others in grey' if len(drawn) > len(chosen) else ''
    pictures = [
        figure(
            precision_chart(group),
            'Upper right is better. A line that falls at once finds its surest pixels on '
            f'ordinary things. Best methods of different scores{rest}.',
        ),
        figure(
            roc,
            'Upper left is better; the axis of false alarms is logarithmic, because a vehicle '
            'lives at its left end. FPR95 is where a line crosses 95 %.',
        ),
    ]
    return heading(group.name) + grid(pictures, 'wide')


def precision_chart(group: Group, *, alone: bool = False) -> str:
    """Return precision over recall of all methods of a data set as SVG, the best in colour.

    With `alone` it is a file of its own, with the best chains of different scores only.
    """
    order = {row.label: place for place, row in enumerate(contenders(group))}
    lines = [
        charts.Line(row.label, curve_points(row.found)[0], order.get(row.label))
        for row in group.rows
        if row.found.get('curve') and (row.label in order or not alone)
    ]
    return charts.line_chart(
        lines,
        x=charts.linear(0, 100, 'recall, %'),
        y=charts.percent('precision, %'),
        title='Precision over recall',
        size=_CHART,
        alone=alone,
    )


def curve_points(found: Mapping[str, Any]) -> tuple[list[charts.Point], list[charts.Point]]:
    """Return precision over recall in percent, and recall in percent over false positive rate."""
    curve, anomalies, known = found['curve'], found['anomaly'], found['known']
    pairs = list(zip(curve['true'], curve['false'], strict=True))
    precision = [(100 * true / anomalies, 100 * true / (true + false)) for true, false in pairs]
    roc = [(false / known, 100 * true / anomalies) for true, false in pairs]
    seen = [point for point in roc if point[0] >= _LOWEST_RATE]
    before = [point for point in roc if point[0] < _LOWEST_RATE][-1:]
    return [(0.0, precision[0][1]), *precision], [*before, *seen, (1.0, 100.0)]


def sweeps(material: Material) -> str:
    """Return the curves and tables of every sweep."""
    parts = []
    for document in material.sweeps:
        parts += [
            heading(
                f'{document["base"]} on {document["dataset"]}, {document.get("frames")} frames'
            ),
            paragraph(sweep_answer(document)),
            grid(
                [
                    figure(sweep.picture(axis, alone=False), axis['text'])
                    for axis in document['axes']
                ]
            ),
        ]
        parts.append(folded('as tables', ''.join(_axis_table(axis) for axis in document['axes'])))
    return ''.join(parts) and paragraph(
        'One option at a time moves away from the base (dotted line); all else stays. AP and F1: '
        'higher is better; FPR95: lower. A flat line means the option does not matter here.',
        'small',
    ) + ''.join(parts)


def sweep_answer(document: Mapping[str, Any]) -> str:
    """Return in a sentence what moves most and what is best."""
    rated = [
        (axis, [point for point in axis['points'] if point.get('AP') is not None])
        for axis in document['axes']
    ]
    rated = [(axis, points) for axis, points in rated if points]
    if not rated:
        return f'Sweep of {document["base"]}: no AP is defined.'

    def spread(points: Sequence[Mapping[str, Any]]) -> float:
        values = [point['AP'] for point in points]
        return float(max(values) - min(values))

    axis, points = max(rated, key=lambda item: spread(item[1]))
    best = max(
        ((one, point) for one, all_points in rated for point in all_points),
        key=lambda item: item[1]['AP'],
    )
    return (
        f'Sweep of {document["base"]}: {axis["name"]} moves AP most (by {spread(points):.1f} '
        f'points over its values); the best AP is {best[1]["AP"]:.1f} % with '
        f'{best[0]["name"]} = {best[1]["label"]}.'
    )


def _axis_table(axis: Mapping[str, Any]) -> str:
    columns = [name for name in METRICS if name in axis['points'][0]]
    rows = [
        [
            f'{point["label"]}{" (base)" if point["base"] else ""}',
            *(number(point[name]) for name in columns),
        ]
        for point in axis['points']
    ]
    return table([axis['name'], *columns], rows, axis['text'])
