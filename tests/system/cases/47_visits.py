"""What a host keeps of a guest that has left, for its return: less travels, nothing is trusted unseen, nothing stays for ever."""
import os
import stat

from harness import MIGRATION, case
from lab.program import until
from watched import PATIENT, Watched, settled

GiB = 1 << 30


def kept(lab, host, vm_id):
    """The files of the visit, once it is whole."""
    node = lab.hosts[host]
    image, key = f"{node.visits}/{vm_id}.image", f"{node.directory}/visits/{vm_id}.key"
    until(lambda: os.path.exists(key) and not os.path.exists(f"{node.memory_directory}/{vm_id}.leaving"), 60,
          f"what {host} keeps of the guest")
    for path in (image, key):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600, path
    return image, key


def verified(lab, vm, host):
    record = lab.migrate(vm, host, "--verify", *PATIENT)["migration"]
    assert record["source_hash"] and record["source_hash"] == record["destination_hash"], record
    return record, {kind["name"]: int(kind["pages"]) for kind in record["classes"]}


@case(needs=MIGRATION, own_lab=True)
def a_guest_that_returns_sends_what_is_new(run):
    with run.new_lab(hosts=2, controllers=1, host_keys=[("reuse", f"max_bytes = {GiB}")]) as lab:
        lab.start()
        lab.vm_create("nomad", run="mem:20:100M", host="h1")
        watched, vm_id = Watched(lab, "nomad"), lab.vm("nomad")["id"]
        there, classes = verified(lab, "nomad", "h2")
        assert "reused" not in classes, classes
        first = kept(lab, "h1", vm_id)
        back, classes = verified(lab, "nomad", "h1")
        assert watched.check() >= 100 * 256
        assert classes["reused"] > 20000, classes
        assert int(back["wire_bytes"]) * 4 < int(there["wire_bytes"]), (there, back)
        run.note(f"there {int(there['wire_bytes']) / 1e6:.1f} MB, back {int(back['wire_bytes']) / 1e6:.1f} MB, reused {classes['reused']} pages")
        until(lambda: not any(map(os.path.exists, first)), 60, "the end of what was used")  # it lives there again

        image, key = kept(lab, "h2", vm_id)
        with open(image, "r+b") as file:  # a disk that lies
            for page in range(0, 256 << 8, 100):
                file.seek(page * 4096 + 17)
                file.write(b"\xa5\x5a")
        result = lab.migrate("nomad", "h2", *PATIENT, check=False)
        assert result.status != 0 and "damaged" in result.stderr, result.stderr
        assert settled(lab, "nomad") == "h1"
        until(lambda: not os.path.exists(image) and not os.path.exists(key), 60, "the end of what was damaged")
        verified(lab, "nomad", "h2")
        watched.check()

        first = kept(lab, "h1", vm_id)
        lab.vm_delete("nomad")
        until(lambda: not any(map(os.path.exists, first)), 60, "the end of what was kept of a deleted VM")
