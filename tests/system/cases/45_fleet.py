"""Moves as the fleet sees them: what stands in the way of one is told before it begins."""
import os

from harness import MIGRATION, case
from lab import netns
from watched import Watched, ended


@case(needs=MIGRATION)
def preflight_tells_all_at_once_and_touches_nothing(run):
    lab = run.lab
    node = lab.hosts["h2"]
    lab.vm_create("odd", host="h1", disk=True)
    guest = Watched(lab, "odd")
    netns.ip_in(node.namespace, ["link set drover0 mtu 1400"])
    image = f"{lab.directory}/disks/odd.raw"
    os.rename(image, image + ".away")
    try:
        refused = lab.cli("vm", "migrate", "odd", "--to", "h2", check=False)
        job = lab.job_list()[0]
        found = {finding["code"]: finding for finding in lab.job(job["id"])["findings"]}
        assert refused.status == 1 and job["state"] == "failed", refused.stderr
        assert set(found) >= {"mtu", "disk"}, found
        assert all(found[code]["severity"] == "refusal" and found[code]["next_step"] for code in ("mtu", "disk")), found
        assert "1400" in found["mtu"]["cause"] and image in found["disk"]["thing"], found
        assert not os.listdir(f"{node.directory}/partitions"), "the refused move left something on the target"
    finally:
        os.rename(image + ".away", image)
        netns.ip_in(node.namespace, ["link set drover0 mtu 1500"])
    lab.cli("vm", "migrate", "odd", "--to", "h2")
    assert lab.vm("odd")["owner"] == "h2"
    guest.check()


@case(needs=MIGRATION)
def a_host_is_emptied_while_its_guests_go_on(run):
    lab = run.lab
    names = ("e1", "e2", "e3")
    for name in names:
        lab.vm_create(name, host="h1", memory=128 << 20, wait=False)
    guests = [Watched(lab, name) for name in names if lab.guest_wait(name)]
    lab.cli("cluster", "set", "--outgoing", 1)
    lab.cli("vm", "set", "e1", "--migration-mode", "hybrid", "--max-downtime", 45)
    assert "hybrid, at most 45 ms" in lab.cli("vm", "show", "e1", form="table").stdout
    job = lab.job(lab.cli("host", "evacuate", "h1", "--reason", "new memory").json["id"])
    try:
        assert job["state"] == "succeeded" and "3 VMs moved" in job["steps"][1]["detail"], job
        for guest in guests:
            guest.check()
        moves = [lab.job(j["id"]) for j in lab.job_list() if j.get("parent_id") == job["id"]]
        assert len(moves) == 3 and all(move["reason"] for move in moves), moves
        # Each went as its VM's definition says.
        assert {move["target"]: move["migration"]["mode"] for move in moves} == {"e1": "hybrid", "e2": "precopy", "e3": "precopy"}, moves
        # One at a time: no move began to send before the one before it had ended.
        spans = sorted((move["steps"][2]["started_ms"], move["finished_ms"]) for move in moves)
        assert all(later[0] >= earlier[1] for earlier, later in zip(spans, spans[1:])), spans
        run.note(f"3 guests off in {job['finished_ms'] - job['created_ms']} ms, one at a time")
        assert all(vm["owner"] != "h1" for vm in lab.vm_list() if vm["spec"]["name"] in names)
        h1 = lab.cli("host", "show", "h1").json
        assert h1["maintenance"] and int(h1["facts"]["link_bytes_per_s"]) > 0, h1  # what an evacuation is planned by
        refused = lab.cli("vm", "migrate", "e1", "--to", "h1", check=False)
        assert refused.status == 1 and "maintenance" in refused.stderr, refused.stderr
    finally:
        lab.cli("host", "set", "h1", "--maintenance", "off")
        lab.cli("cluster", "set", "--outgoing", 2)
    back = lab.cli("vm", "migrate", "e1", "--to", "h1", "--mode", "precopy")  # for this once
    assert back.json["migration"]["mode"] == "precopy", back.json
    guests[0].check()


@case(needs=MIGRATION)
def an_evacuation_survives_its_leader(run):
    lab = run.lab
    for name in ("c1", "c2", "c3"):
        lab.vm_create(name, host="h2", memory=128 << 20, wait=False)
    for name in ("c1", "c2", "c3"):
        lab.guest_wait(name).close()
    lab.cli("cluster", "set", "--outgoing", 1)
    try:
        job = lab.cli("host", "evacuate", "h2", "--async").json["id"]
        lab.controllers[lab.leader()].daemon.kill()
        ended(lab, job, "succeeded")
        assert not [vm for vm in lab.vm_list() if vm["owner"] == "h2"]
    finally:
        for node in lab.controllers.values():
            if not node.daemon.alive():
                node.daemon.start()
        lab.cli("host", "set", "h2", "--maintenance", "off")
        lab.cli("cluster", "set", "--outgoing", 2)
