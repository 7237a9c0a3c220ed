"""Moves as the fleet sees them: what stands in the way of one is told before it begins."""
import os

from harness import MIGRATION, case
from lab import netns
from watched import Watched


@case(deadline=60, needs=MIGRATION)
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
