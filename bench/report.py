"""From runs to JSON, a Markdown table and plots."""
import json

import figures
import plan
import plot
from arena import link_bits

INTACT, VOID = "intact", "void"
FAILED = ("damaged", "gave-up", "endless", "did-not-start")
QUIET_CORES = 0.15  # the kernel's own threads need some
# key, title, digits: figures of a move. The less, the better, all of them.
COLUMNS = [("total_s", "total s", 2), ("blackout_ms", "blackout ms", 1), ("heard_ms", "not heard ms", 1), ("dark_sum_ms", "dark sum ms", 0),
           ("reported_ms", "reported ms", 1), ("unreported_ms", "unreported ms", 1), ("wire_mb", "wire MB", 1), ("cpu_s_per_gib", "CPU s/GiB", 2), ("dip_percent", "dip %", 0),
           ("recover_s", "recover s", 2), ("lost_work_s", "work lost s", 2), ("extra_ram_mb", "extra RAM MB", 1)]
LINK_COLUMNS = [("mb_s", "MB/s", 0), ("cores", "cores", 2), ("mb_s_per_core", "MB/s per core", 0)]
GOALS = "total <= 1 · blackout <= 0.33 · bytes <= 0.35 of pre-copy, <= 1 of multifd-zstd · CPU <= 0.33 of multifd-zstd"


def outcome_line(result):
    if result["outcome"] != INTACT:
        return f"{result['outcome'].upper()}: {result['error']}"
    if "mb_s" in result:
        return f"{result['mb_s']:.0f} MB/s with {result['cores']:.2f} cores"
    return (f"total {result['total_s']:.2f} s, blackout {result['blackout_ms']:.1f} ms (said {result['reported_ms']:.1f}), "
            f"{result['wire_mb']:.1f} MB")


def cells(runs, suite):
    """{(workload, link): {engine: runs}} of a suite, in the order in which they came; runs without a guest left out."""
    found = {}
    for run in runs:
        if run["suite"] == suite and run["outcome"] != VOID:
            found.setdefault((run["workload"], run["link"]), {}).setdefault(run["engine"], []).append(run)
    return found


def values(runs, key):
    """One value a run: NEVER where the run failed, or where the figure says that it never came (recovery). Runs of a guest that does no
    work have no figure of work; [] then."""
    good = [run for run in runs if run["outcome"] == INTACT]
    if good and not any(key in run for run in good):
        return []
    return [run[key] if run["outcome"] == INTACT and run.get(key) is not None else figures.NEVER for run in runs]


def summarize(runs, columns=tuple(COLUMNS)):
    summary = {"runs": len(runs)}
    for outcome in (INTACT, *FAILED):
        summary[outcome] = sum(run["outcome"] == outcome for run in runs)
    summary["figures"] = {key: figures.summary(values(runs, key)) for key, _, _ in columns}
    return summary


def number(value, digits):
    return "never" if value in (None, figures.NEVER) else f"{value:.{digits}f}"


def figure_text(summary, digits):
    """As the heading says of the figures."""
    if summary is None:
        return "–"
    if summary["failed"] == summary["n"]:
        return "never"
    median = number(summary["median"], digits)
    if summary["n"] == 1:
        return median
    if "ci_low" not in summary:
        return f"{median} ({number(summary['best'], digits)}..{number(summary['worst'], digits)})"
    return f"{median} [{number(summary['ci_low'], digits)}, {number(summary['ci_high'], digits)}] {number(summary['p95'], digits)}"


def table(rows):
    """Markdown."""
    return "\n".join([f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])] + [f"| {' | '.join(row)} |" for row in rows[1:]])


def moves_tables(runs):
    parts = []
    for (workload, link), by_engine in cells(runs, plan.MOVES).items():
        rows = [["engine", "intact"] + [title for _, title, _ in COLUMNS]]
        notes = []
        for engine, mine in by_engine.items():
            summary = summarize(mine)
            rows.append([engine, f"{summary['intact']}/{summary['runs']}"] +
                        [figure_text(summary["figures"][key], digits) for key, _, digits in COLUMNS])
            notes += [f"- {engine}, run {run['number'] + 1}: {run['outcome']}: {one_line(run['error'])}"
                      for run in mine if run["outcome"] != INTACT]
        parts.append(f"### {workload}, {link}\n\n{table(rows)}" + ("\n\n" + "\n".join(notes) if notes else ""))
    return parts


def one_line(text):
    return " ".join(str(text).split())[:300].replace("|", "/")


def median(runs, key):
    summary = figures.summary(values(runs, key))
    return None if summary is None else summary["median"]


def ratio(ours, theirs):
    if ours is None or theirs in (None, 0):
        return "–"
    if ours == figures.NEVER:
        return "never"
    return "0" if theirs == figures.NEVER else f"{ours / theirs:.2f}"


def verdicts(runs):
    """Drover's medians as a share of the best QEMU setting's, cell by cell and figure by figure."""
    rows = [["workload, link", "Drover", "total / best", "blackout / best", "bytes / pre-copy", "bytes / multifd-zstd",
             "CPU / multifd-zstd", "CPU / best"]]
    for (workload, link), by_engine in cells(runs, plan.MOVES).items():
        peers = {engine: mine for engine, mine in by_engine.items() if not engine.startswith("drover")}
        if not peers:
            continue

        def best(key):
            return min((value for value in (median(mine, key) for mine in peers.values()) if value is not None), default=None)

        def peer(name, key):
            return median(peers[name], key) if name in peers else None

        for engine, mine in by_engine.items():
            if engine.startswith("drover"):
                ours = {key: median(mine, key) for key in ("total_s", "blackout_ms", "wire_mb", "cpu_s_per_gib")}
                rows.append([f"{workload}, {link}", engine.removeprefix("drover-"), ratio(ours["total_s"], best("total_s")),
                             ratio(ours["blackout_ms"], best("blackout_ms")),
                             ratio(ours["wire_mb"], peer("qemu-precopy", "wire_mb")),
                             ratio(ours["wire_mb"], peer("qemu-multifd-zstd", "wire_mb")),
                             ratio(ours["cpu_s_per_gib"], peer("qemu-multifd-zstd", "cpu_s_per_gib")),
                             ratio(ours["cpu_s_per_gib"], best("cpu_s_per_gib"))])
    return [f"### Drover against the best QEMU setting of each cell\n\n{table(rows)}\n\nGoals: {GOALS}."] if len(rows) > 1 else []


def map_tables(runs):
    by_engine = map_cells(runs)
    parts = []
    for engine, points in by_engine.items():
        links = sorted({link for link, _ in points}, key=link_bits)
        factors = sorted({factor for _, factor in points})
        rows = [["writes / link"] + links]
        for factor in factors:
            rows.append([f"{factor:g}"] + [map_text(points.get((link, factor))) for link in links])
        parts.append(f"### Convergence: {engine}\n\n{table(rows)}")
    if parts:
        parts.append("Seconds until the move ended (median), or how it did not. Rows: what the guest writes, in pages that do not "
                     "compress, as a share of what the link carries.")
    return parts


def map_cells(runs):
    """{engine: {(link, factor): summary}}"""
    found = {}
    for (workload, link), by_engine in cells(runs, plan.MAP).items():
        for engine, mine in by_engine.items():
            found.setdefault(engine, {})[(link, plan.map_factor(workload, link))] = summarize(mine)
    return found


def map_text(summary):
    if summary is None:
        return ""
    ended = figure_text(summary["figures"]["total_s"], 1).split(" ")[0] + " s" if summary["intact"] else ""
    bad = ", ".join(f"{summary[outcome]} {outcome}" for outcome in FAILED if summary[outcome])
    return f"{ended} ({bad})" if ended and bad else ended or bad


def link_tables(runs):
    parts = []
    for by_engine in cells(runs, plan.LINK).values():
        peer = median(by_engine.get("iperf3", []), "mb_s_per_core")
        plain = median(by_engine.get("drover-plain", []), "mb_s")
        rows = [["sender", "intact"] + [title for _, title, _ in LINK_COLUMNS] + ["per core / iperf3", "encrypted / plain"]]
        for engine, mine in by_engine.items():
            summary = summarize(mine, LINK_COLUMNS)
            rows.append([engine, f"{summary['intact']}/{summary['runs']}"] +
                        [figure_text(summary["figures"][key], digits) for key, _, digits in LINK_COLUMNS] +
                        [ratio(median(mine, "mb_s_per_core"), peer),
                         ratio(median(mine, "mb_s"), plain) if engine == "drover-encrypted" else "–"])
        parts.append(f"### Filling the link: unshaped, pages that do not compress\n\n{table(rows)}")
    return parts


def byte_classes(runs):
    """What the engines say of their bytes: medians of each class they tell of."""
    parts = []
    for (workload, link), by_engine in cells(runs, plan.MOVES).items():
        rows = [["engine", "on the wire MB", "back MB", "as the engine tells"]]
        for engine, mine in by_engine.items():
            good = [run for run in mine if run["outcome"] == INTACT]
            if good:
                classes = {key: figures.median([run["classes"].get(key, 0) for run in good]) for key in good[0]["classes"]}
                rows.append([engine, f"{median(good, 'wire_mb'):.1f}", f"{median(good, 'wire_back_mb'):.2f}",
                             ", ".join(f"{key} {value:,.0f}" for key, value in classes.items() if value)])
        parts.append(f"### Bytes: {workload}, {link}\n\n{table(rows)}")
    return parts


def heading(results):
    s, session = results.settings, results.sessions[-1] if results.sessions else {}
    builds = {one["engine"] for one in results.sessions}
    text = (f"# bench/migrate, {s['mode']} mode\n\n{session.get('at', '')} · {session.get('cpus')} cores of {session.get('cpu')}, "
            f"Linux {session.get('kernel')}, {session.get('qemu')}, {session.get('accelerator')} · guest of {s['memory'] >> 20} MiB, working set "
            f"{s['working_set'] >> 20} MiB, downtime limit {s['downtime_ms']} ms, a move is endless after {s['timeout_s']:.0f} s.\n\n"
            f"Figures: median (least..most), and of {figures.INTERVAL_RUNS_MIN} runs and more median [95 % confidence interval of it] 95th "
            "percentile, by nearest rank: of fewer than 20 runs the most. One number is one run. A failed run counts as the worst.")
    if len(builds) > 1:
        text += f"\n\n**{len(builds)} builds of Drover's engine are mixed in these results.**"
    busy = disturbed(results.runs)
    return text + (f"\n\n{busy}" if busy else "")


def disturbed(runs):
    """Says how many moves had the machine not for themselves."""
    moved = [run["foreign_cores"] for run in runs if "foreign_cores" in run]
    shared = [cores for cores in moved if cores > QUIET_CORES]
    if not shared:
        return ""
    return (f"**{len(shared)} of {len(moved)} moves shared the machine with others that used more than {QUIET_CORES} of a core meanwhile "
            f"(at worst {max(shared):.1f} cores): their times and blackouts are too long.**")


def summary_json(results):
    summary = {}
    for suite, columns in ((plan.MOVES, COLUMNS), (plan.MAP, COLUMNS), (plan.LINK, LINK_COLUMNS)):
        for (workload, link), by_engine in cells(results.runs, suite).items():
            for engine, mine in by_engine.items():
                summary[f"{suite}/{workload}/{link}/{engine}"] = summarize(mine, columns)
    return {"settings": results.settings, "sessions": results.sessions, "skipped": results.skipped, "summary": summary,
            "runs": results.runs}


def void_lines(void):
    """One a cell: how many, and why."""
    reasons = {}
    for run in void:
        cell = f"{run['suite']}/{run['workload']}/{run['link']}/{run['engine']}"
        reasons.setdefault(cell, []).append(one_line(run["error"]))
    return [f"- {cell}: {len(said)}: {'; '.join(sorted(set(said)))}" for cell, said in reasons.items()]


def holds(runs):
    """Whether none of Drover's runs failed, and each of its cells has a run that counts."""
    ours = [run for run in runs if run["engine"].startswith("drover")]
    cells_of = [{(run["suite"], run["workload"], run["link"], run["engine"]) for run in some}
                for some in (ours, [run for run in ours if run["outcome"] == INTACT])]
    return cells_of[0] == cells_of[1] and all(run["outcome"] in (INTACT, VOID) for run in ours)


def write(results, path):
    """Writes PATH.json, PATH.md and PATH-*.svg; returns the Markdown for the terminal."""
    tables = moves_tables(results.runs) + verdicts(results.runs) + map_tables(results.runs) + link_tables(results.runs)
    skipped = [f"- {cell}: {reason}" for cell, reason in results.skipped.items()]
    void = [run for run in results.runs if run["outcome"] == VOID]
    if skipped:
        tables.append("### Skipped\n\n" + "\n".join(skipped))
    if void:
        tables.append("### Without a guest\n\nNot counted, since the same guest did not start without the engine either:\n\n" +
                      "\n".join(void_lines(void)))
    shown = heading(results) + "\n\n" + "\n\n".join(tables) + "\n"
    plots = plot.write_all(results.runs, path)
    with open(f"{path}.md", "w") as file:
        file.write(shown + "\n" + "\n\n".join(byte_classes(results.runs)) + "\n\n" +
                   "\n".join(f"![{name}]({name})" for name in plots) + "\n")
    with open(f"{path}.json", "w") as file:
        json.dump(figures.finite(summary_json(results)), file, indent=1)
        file.write("\n")
    return shown + f"\nwritten to {path}.md, .json and {len(plots)} plots\n"
