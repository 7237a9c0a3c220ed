"""Plots of the results as SVG: bars of each cell's figures, throughput of the guest over time, the convergence map."""
import os

import figures
import plan
import report
from arena import link_bits
from svg import Drawing

COLORS = {"drover": "#1b6ca8", "qemu": "#c46210", "libvirt": "#6b8e23"}
LINES = ["#1b6ca8", "#c46210", "#2e8b57", "#8e44ad", "#b22222", "#708090", "#d4a017", "#008b8b", "#555555", "#e377c2"]
BARS = ("total_s", "blackout_ms", "wire_mb", "cpu_s_per_gib", "lost_work_s", "extra_ram_mb")
ROW, NAME, BAR, GAP, TOP = 18, 135, 150, 70, 62
TIMELINE_WIDTH, TIMELINE_HEIGHT, STRIP = 640, 60, 92
CELL_WIDTH, CELL_HEIGHT = 86, 30
MAP_WIDTH_MIN = 640  # its title


def write_all(runs, path):
    """Writes PATH-*.svg; returns their names."""
    names = []

    def keep(drawing, suffix):
        if drawing:
            drawing.write(f"{path}-{suffix}.svg")
            names.append(os.path.basename(f"{path}-{suffix}.svg"))

    for (workload, link), by_engine in report.cells(runs, plan.MOVES).items():
        keep(bars(f"{workload}, {link}", by_engine), f"{workload}-{link}")
        keep(timelines(f"{workload}, {link}: the guest's throughput around the move", by_engine), f"{workload}-{link}-throughput")
    keep(convergence(report.map_cells(runs)), "map")
    return names


def color(engine):
    return COLORS.get(engine.split("-")[0], "#444")


def bars(title, by_engine):
    """Medians as bars, the worst run as a whisker; one panel a figure, each with its own scale from zero."""
    titles = {key: name for key, name, _ in report.COLUMNS}
    digits = {key: places for key, _, places in report.COLUMNS}
    summaries = {engine: report.summarize(mine)["figures"] for engine, mine in by_engine.items()}
    shown = [key for key in BARS if any(summary[key] for summary in summaries.values())]
    drawing = Drawing(NAME + len(shown) * (BAR + GAP) + 10, TOP + ROW * len(summaries) + 16)
    drawing.text(10, 22, title, 14, bold=True)
    for column, key in enumerate(shown):
        left = NAME + column * (BAR + GAP)
        finite = [value for summary in summaries.values() if summary[key]
                  for value in (summary[key]["median"], summary[key]["worst"]) if value != figures.NEVER]
        scale = BAR / max(finite, default=1) if max(finite, default=0) > 0 else 0
        drawing.text(left, TOP - 12, titles[key], 11, bold=True)
        for row, (engine, summary) in enumerate(summaries.items()):
            y = TOP + row * ROW
            if column == 0:
                drawing.text(NAME - 8, y + 12, engine, 10, "end")
            if summary[key] is None:
                continue
            median, worst = summary[key]["median"], summary[key]["worst"]
            if median == figures.NEVER:
                drawing.text(left + 2, y + 12, "never", 10, color="#b00020")
                continue
            drawing.rect(left, y + 2, max(0, median) * scale, ROW - 6, color(engine), f"{engine}: {median:.3g}")
            if worst != figures.NEVER:
                drawing.line(left + max(0, median) * scale, y + ROW / 2 - 1, left + max(0, worst) * scale, y + ROW / 2 - 1, "#222")
            end = max(median, worst) if worst != figures.NEVER else median
            drawing.text(left + max(0, end) * scale + 4, y + 12, f"{median:.{digits[key]}f}", 10)
    drawing.text(10, drawing.height - 4, "bar: median, whisker: the worst run; less is better", 9, color="#666")
    return drawing


def timelines(title, by_engine):
    """One strip an engine: the run whose total time is the median one."""
    chosen = {}
    for engine, mine in by_engine.items():
        good = sorted((run for run in mine if run["outcome"] == report.INTACT and "timeline" in run), key=lambda run: run["total_s"])
        if good:
            chosen[engine] = good[(len(good) - 1) // 2]
    if not chosen:
        return None
    begin = min(run["timeline"]["from_s"] for run in chosen.values())
    end = max(run["timeline"]["from_s"] + run["timeline"]["step_s"] * len(run["timeline"]["percent"]) for run in chosen.values())
    drawing = Drawing(NAME + TIMELINE_WIDTH + 20, 40 + STRIP * len(chosen) + 10)
    drawing.text(10, 22, title, 14, bold=True)

    def x_of(second):
        return NAME + (second - begin) / (end - begin) * TIMELINE_WIDTH

    for row, (engine, run) in enumerate(chosen.items()):
        base = 40 + row * STRIP + TIMELINE_HEIGHT
        drawing.text(NAME - 8, base - TIMELINE_HEIGHT / 2, engine, 10, "end")
        for percent in (0, 100):
            drawing.line(NAME, base - percent * TIMELINE_HEIGHT / 150, NAME + TIMELINE_WIDTH, base - percent * TIMELINE_HEIGHT / 150, "#ddd")
            drawing.text(NAME + TIMELINE_WIDTH + 2, base - percent * TIMELINE_HEIGHT / 150 + 3, f"{percent}", 8, color="#666")
        for at, name in ((0, "order"), (run["total_s"], f"{run['total_s']:.2f} s")):
            drawing.line(x_of(at), base - TIMELINE_HEIGHT, x_of(at), base + 4, "#b00020" if at else "#666")
            drawing.text(x_of(at), base + 15, name, 9, "middle", "#666")
        line = run["timeline"]
        drawing.path([(x_of(line["from_s"] + (i + 0.5) * line["step_s"]), base - min(150, percent) * TIMELINE_HEIGHT / 150)
                      for i, percent in enumerate(line["percent"])], LINES[row % len(LINES)])
    return drawing


def convergence(by_engine):
    """Green: ended intact; darker: took longer. Red: did not."""
    if not by_engine:
        return None
    links = sorted({link for points in by_engine.values() for link, _ in points}, key=link_bits)
    factors = sorted({factor for points in by_engine.values() for _, factor in points})
    block = len(links) * CELL_WIDTH + 90
    drawing = Drawing(max(MAP_WIDTH_MIN, 20 + block * len(by_engine)), 90 + len(factors) * CELL_HEIGHT)
    drawing.text(10, 22, "Convergence: what the guest writes as a share of the link (rows), link (columns)", 14, bold=True)
    longest = max((summary["figures"]["total_s"]["median"] for points in by_engine.values() for summary in points.values()
                   if summary["figures"]["total_s"]["median"] != figures.NEVER), default=1)
    for place, (engine, points) in enumerate(by_engine.items()):
        left = 60 + place * block
        drawing.text(left, 52, engine, 12, bold=True)
        for column, link in enumerate(links):
            drawing.text(left + (column + 0.5) * CELL_WIDTH, 70, link, 10, "middle")
        for row, factor in enumerate(factors):
            y = 78 + row * CELL_HEIGHT
            drawing.text(left - 6, y + 19, f"{factor:g}", 10, "end")
            for column, link in enumerate(links):
                summary = points.get((link, factor))
                if summary is None:
                    continue
                whole = summary["intact"] == summary["runs"]
                median = summary["figures"]["total_s"]["median"]
                light = 88 - 38 * min(1.0, median / longest) if whole else 72
                drawing.rect(left + column * CELL_WIDTH + 1, y + 1, CELL_WIDTH - 2, CELL_HEIGHT - 2,
                             f"hsl({140 if whole else 0}, 45%, {light:.0f}%)", report.map_text(summary))
                drawing.text(left + (column + 0.5) * CELL_WIDTH, y + 19, report.map_text(summary)[:14], 9, "middle")
    return drawing
