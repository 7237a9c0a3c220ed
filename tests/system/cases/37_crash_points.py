"""SIGKILL of every process at every named step of a migration (base/crashpoint.c): always one owner, the guest never notices, and
nothing is left behind. A few points belong to every run; --crash-points all runs through the whole table, and fails where one of
its points is never reached."""
from blows import chosen, every
from crash import known_points
from harness import MIGRATION, case
from walk import HEADING, line_of, walk


@case(deadline=5400, needs=MIGRATION)
def crash_points(run):
    lab = run.lab
    table, struck = set(known_points(lab)), {blow.point for blow in every()}
    assert table == struck, f"points without a blow: {sorted(table - struck)}; blows without a point: {sorted(struck - table)}"
    loud = run.options.crash_points

    def tell(line):
        if loud:
            print(f"    | {line}", flush=True)
    blows = chosen(run.options.crash_points)
    assert blows, f"no blow is called {run.options.crash_points}"
    results = walk(run, blows, run.options.crash_state, tell)
    if loud:
        print("\n".join(f"    | {line}" for line in ["", HEADING] + [line_of(result) for result in results]), flush=True)
    failed = [line_of(result) for result in results if result.problem or not result.reached]
    assert not failed, f"{len(failed)} of {len(results)} blows:\n" + "\n".join(failed)
    slowest = max(results, key=lambda result: result.seconds)
    ranked = sorted(result.seconds for result in results)
    run.note(f"{len(results)} blows; in order again after {ranked[len(ranked) // 2]:.1f} s, at most {slowest.seconds:.1f} s "
             f"({slowest.blow}); {sum(seconds > 5 for seconds in ranked)} took more than 5 s")
