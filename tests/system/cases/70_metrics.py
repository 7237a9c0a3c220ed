"""What Prometheus sees, and what an idle cluster costs."""
import time

from harness import case
from lab import program
from lab.program import until


def scrape(lab, node):
    done = lab.run(["curl", "-fsS", "--max-time", "60", f"http://{node.metrics}/metrics"])
    assert done.returncode == 0, done.stderr
    return done.stdout


@case(needs=("root", "namespaces", "promtool"))
def metrics_pass_promtool(run):
    lab = run.lab
    for node in lab.nodes():
        text = scrape(lab, node)
        done = lab.run(["promtool", "check", "metrics"], input=text)
        assert done.returncode == 0 and not done.stderr.strip(), f"{node.name}: {done.stdout}{done.stderr}"


@case()
def a_metric_has_one_meaning(run):
    """Whoever exports it: sums over all programs are what users write."""
    lab = run.lab
    controller, host = (families(scrape(lab, node)) for node in (lab.controllers[lab.leader()], lab.hosts["h1"]))
    both = controller.keys() & host.keys()
    assert both and all(controller[name] == host[name] for name in both), {name: (controller[name], host[name]) for name in both}
    assert all(name.startswith(("drover_wire_", "drover_build_", "process_")) for name in both), both  # what every program has


def families(text):
    """{name: (what it says it is, its labels)}"""
    found = {line.split()[2]: (line.split(" ", 3)[3], set()) for line in text.splitlines() if line.startswith("# HELP ")}
    for line in text.splitlines():
        name, _, labels = line.split(" ")[0].partition("{")
        if name in found:
            found[name][1].update(part.split("=")[0] for part in labels.rstrip("}").split(",") if part)
    return found


@case()
def metrics_tell_load_jobs_and_raft(run):
    lab = run.lab
    lab.vm_create("seen", run="cpu:20", host="h1")
    wanted = ((lambda: lab.controllers[lab.leader()],
               ("drover_raft_term", "drover_raft_commit_index", "drover_raft_is_leader 1", "drover_jobs", "drover_migration_duration_seconds",
                "drover_migration_blackout_seconds", "drover_migration_network_blackout_seconds", "drover_migration_wire_bytes_total",
                'drover_vm_cpu_cores{vm="seen"')),
              (lambda: lab.hosts["h1"], ("drover_hostd_cpu_cores", 'drover_partition_cpu_cores{vm="seen"')))
    for node, names in wanted:
        for name in names:
            until(lambda: f"\n{name}" in scrape(lab, node()), 60, name)


@case()
def idle_cluster_is_cheap(run):
    """The bound on CPU is wide, because other programs share the machine; the figure is printed."""
    lab = run.lab
    before = {node.name: program.cpu_seconds(node.daemon.pid) for node in lab.nodes()}
    begin = time.monotonic()
    time.sleep(10)  # the measurement
    elapsed = time.monotonic() - begin
    share = {node.name: (program.cpu_seconds(node.daemon.pid) - before[node.name]) / elapsed for node in lab.nodes()}
    memory = {node.name: program.rss_bytes(node.daemon.pid) / 2**20 for node in lab.nodes()}
    run.note(f"hostd {max(share[n] for n in lab.hosts):.1%} {max(memory[n] for n in lab.hosts):.0f} MiB, controller "
             f"{max(share[n] for n in lab.controllers):.1%} {max(memory[n] for n in lab.controllers):.0f} MiB")
    assert max(memory[name] for name in lab.hosts) < 30, memory
    assert max(memory[name] for name in lab.controllers) < 96, memory
    assert max(share.values()) < 0.2, share
