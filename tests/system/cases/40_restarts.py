"""Daemons die and come back; guests and jobs do not notice."""
import json
import os
import shutil
import signal
import subprocess
import time

from harness import MIGRATION, case
from lab import netns
from lab.program import until
from watched import Watched, begin_slow_move, ended, owner, settled


@case()
def hostd_restart_adopts_partitions(run):
    lab = run.lab
    lab.vm_create("adopted", run="cpu:10", host="h1", disk=True)
    watched = Watched(lab, "adopted")
    before = lab.qemus(lab.vm("adopted")["id"])
    for end in (lab.hosts["h1"].daemon.kill, lab.hosts["h1"].daemon.stop):
        end()
        watched.check()
        lab.hosts["h1"].daemon.start()
        lab.wait_hosts()
        until(lambda: lab.vm("adopted")["state"] == "running", 60, "the partition to be adopted")
        assert lab.qemus(lab.vm("adopted")["id"]) == before
        watched.check()
    # One that does not find the record says nothing at all: else the VM would be started elsewhere, too.
    node = lab.hosts["h1"]
    node.daemon.stop()
    with open(node.config) as file:
        config = file.read()
    with open(node.config, "w") as file:
        file.write(config.replace(f"directory = {node.directory}\n", f"directory = {node.directory}-other\n", 1))
    node.daemon.start()
    assert node.daemon.wait(60) != 0 and "knows nothing" in node.daemon.log_tail(), node.daemon.log_tail()
    with open(node.config, "w") as file:
        file.write(config)
    watched.check()
    node.daemon.start()
    lab.wait_hosts()
    until(lambda: lab.vm("adopted")["state"] == "running", 60, "the partition to be adopted")
    assert lab.qemus(lab.vm("adopted")["id"]) == before
    # Adopted means: can be acted on.
    lab.cli("vm", "stop", "adopted")
    assert lab.residue("h1") == [], lab.residue("h1")


def refused_of(lab, host):
    return lab.cli("host", "show", host).json.get("refused", "")


@case()
def a_host_gone_for_good_is_replaced(run):
    """Its VMs stay its own until a daemon with its key says that it runs nothing; whoever else has the key is not believed."""
    lab = run.lab
    lab.vm_create("orphan", host="h1")
    node = lab.hosts["h1"]
    copy = node.copy(lab.hosts["h3"])
    copy.start()
    try:
        until(lambda: "another machine" in refused_of(lab, "h1"), 60, "the copy to be refused beside the host")
        os.kill(node.daemon.pid, signal.SIGSTOP)
        try:
            until(lambda: "--stand-in" in refused_of(lab, "h1") or not owner(lab, "orphan"), 60, "the copy to be refused in its place")
            assert owner(lab, "orphan") == "h1"
        finally:
            os.kill(node.daemon.pid, signal.SIGCONT)
        until(lambda: lab.vm("orphan")["state"] == "running", 60, "the host to be heard again")
    finally:
        copy.kill()
    node.daemon.kill()
    for pid in lab.qemus(lab.vm("orphan")["id"])["h1"]:
        os.kill(pid, signal.SIGKILL)
    fabric = ("lo", "mgmt", "uplink", "drover0")
    netns.ip_in(node.namespace, [f"link del {link}" for link in netns.links(node.namespace) if link not in fabric])
    for directory in (node.directory, node.memory_directory):
        shutil.rmtree(directory)
        os.makedirs(directory, mode=0o700)
    until(lambda: lab.cli("host", "show", "h1").json["state"] == "unreachable", 60, "the host to be missed")
    refused = lab.cli("host", "remove", "h1", check=False, form=None)
    assert refused.status == 6 and "host remove h1 --dead" in refused.stderr, refused.stderr
    vm = lab.vm("orphan")  # nobody can tell how it is, least of all by what its host said last
    assert vm["owner"] == "h1" and vm["state"] == "none" and "h1 not heard for" in vm["unknown"], vm
    assert lab.cli("cluster", "status").json["vms_unknown"] == 1
    copy.argv.append("--stand-in")
    copy.start()
    try:
        until(lambda: not owner(lab, "orphan"), 60, "the VM to be free")
    finally:
        copy.stop()
    node.daemon.start()
    until(lambda: lab.cli("host", "show", "h1").json["facts"]["migration_address"] == node.address, 60, "the host to be itself again")
    lab.cli("vm", "start", "orphan", "--host", "h2")
    lab.guest_wait("orphan").close()
    lab.vm_delete("orphan")
    lab.cli("host", "remove", "h1")
    lab.cli("host", "add", "h1", "--key", node.public_key())
    lab.wait_hosts()


@case()
def a_dead_hosts_vms_are_free_by_the_operators_word(run):
    """Even if the word was wrong: what the host still runs is ended once it is a host again."""
    lab = run.lab
    lab.vm_create("freed", host="h1")
    vm_id = lab.vm("freed")["id"]
    node = lab.hosts["h1"]
    heard = lab.cli("host", "remove", "h1", "--dead", check=False, form=None)
    assert heard.status == 6 and "is heard" in heard.stderr, heard.stderr
    node.daemon.kill()
    until(lambda: lab.cli("host", "show", "h1").json["state"] == "unreachable", 60, "the host to be missed")
    job = lab.cli("host", "remove", "h1", "--dead").json
    assert "freed" in job["steps"][0]["detail"], job
    assert not owner(lab, "freed") and "h1" not in [host["name"] for host in lab.host_list()]
    assert "h1" in lab.qemus(vm_id), "the host was to be not as dead as it was said to be"
    lab.cli("host", "add", "h1", "--key", node.public_key())
    node.daemon.start()
    lab.wait_hosts()
    until(lambda: "h1" not in lab.qemus(vm_id), 60, "the guest of an older generation to be ended")
    lab.cli("vm", "start", "freed", "--host", "h2")
    lab.guest_wait("freed").close()
    lab.vm_delete("freed")


@case()
def controllers_restart_with_their_data(run):
    lab = run.lab
    lab.vm_create("kept", host="h1")
    lab.vm_create("idle-definition", start=False)
    watched = Watched(lab, "kept")
    jobs = {job["id"]: job["state"] for job in lab.job_list()}
    for node in lab.controllers.values():
        node.daemon.kill()
    watched.check()
    for node in lab.controllers.values():
        node.daemon.start()
    lab.leader()
    lab.wait_hosts()
    until(lambda: lab.vm("kept")["state"] == "running", 60, "the VM to be seen running")
    watched.check()
    after = {job["id"]: job["state"] for job in lab.job_list()}
    assert all(after.get(job_id) == state for job_id, state in jobs.items()), f"{jobs} became {after}"
    assert {vm["spec"]["name"] for vm in lab.vm_list()} == {"kept", "idle-definition"}
    assert sorted(lab.hosts) == sorted(host["name"] for host in lab.host_list())


@case()
def leader_killed_cli_answers_and_no_job_is_lost(run):
    lab = run.lab
    leader = lab.leader()
    acknowledged = []
    for i in range(5):
        acknowledged.append(lab.cli("vm", "create", f"early{i}", "--memory", "64M", "--async",
                                    "--kernel", f"{lab.guest_directory}/vmlinux").json["id"])
    lab.controllers[leader].daemon.kill()
    begin = time.monotonic()
    acknowledged.append(lab.cli("vm", "create", "late", "--memory", "64M", "--async", "--timeout", "60", "--kernel",
                                f"{lab.guest_directory}/vmlinux").json["id"])
    run.note(f"answered {time.monotonic() - begin:.1f} s after the kill")
    for job_id in acknowledged:
        ended(lab, job_id, "succeeded")
    names = {vm["spec"]["name"] for vm in lab.vm_list()}
    assert names == {f"early{i}" for i in range(5)} | {"late"}, names
    assert len(set(acknowledged)) == len(acknowledged)
    lab.controllers[leader].daemon.start()
    until(lambda: lab.cli("cluster", "status", "--stale").json["leader"], 60, "a leader known")


@case(needs=MIGRATION)
def unfinished_job_goes_on_under_a_new_leader(run):
    lab = run.lab
    lab.vm_create("carried", host="h1")
    watched = Watched(lab, "carried")
    job_id = begin_slow_move(lab, "carried", "h2")
    leader = lab.leader()
    lab.controllers[leader].daemon.kill()
    ended(lab, job_id, "succeeded")
    lab.controllers[leader].daemon.start()
    assert settled(lab, "carried") == "h2" == owner(lab, "carried")
    watched.check()


def peak(lab):
    return lab.cli("host", "show", "h1").json.get("peak", {}).get("cpu_cores", 0)


@case(needs=MIGRATION)
def leader_stopped_in_order_hands_over(run):
    lab = run.lab
    lab.vm_create("worked", run="cpu:80", host="h1")
    until(lambda: peak(lab) > 0.15, 60, "the guest's work in the host's load")
    lab.vm_delete("worked")  # the next leader sees none of it
    seen, leader = peak(lab), lab.leader()
    begin = time.monotonic()
    assert lab.controllers[leader].daemon.stop() == 0
    until(lambda: lab.leader() != leader, 60, "another leader")
    run.note(f"{time.monotonic() - begin:.1f} s")
    lab.wait_hosts()
    try:
        until(lambda: peak(lab) >= seen * 0.99, 60, f"a peak of {seen} cores, which the leader before knew")
    except TimeoutError as error:
        raise AssertionError(f"{error}; the new one knows {peak(lab)}") from None
    lab.controllers[leader].daemon.start()


def member(lab, name):
    return next((one for one in lab.status()["members"] if one["name"] == name), {})


@case()
def a_controller_that_lost_its_log_is_named_and_comes_back(run):
    """It votes for nothing it has promised before: it has to be removed, emptied and added again, and the leader says so."""
    lab = run.lab
    leader = lab.leader()
    name = next(name for name in sorted(lab.controllers) if name != leader)
    node = lab.controllers[name]
    was = member(lab, name)
    with open(node.config) as file:
        configuration = file.read()
    node.daemon.kill()
    shutil.rmtree(node.directory)
    os.makedirs(node.directory, mode=0o700)
    with open(node.config, "w") as file:
        file.write(configuration + "[cluster]\njoin = true\n")
    node.daemon.start()
    until(lambda: member(lab, name).get("lost_its_log"), 60, "the leader to name the controller that lost its log")
    lab.cli("cluster", "member", "remove", name)
    lab.cli("cluster", "member", "add", name, "--key", node.public_key(), "--raft-address", was["raft_address"],
            "--api-address", was["api_address"])
    until(lambda: member(lab, name).get("role") == "voter", 60, "the controller to vote again")
    assert not member(lab, name).get("lost_its_log")
    with open(node.config, "w") as file:
        file.write(configuration)
    other = next(other for other in lab.controllers if other not in (leader, name))
    lab.controllers[other].daemon.kill()  # now a change needs what was lost
    lab.vm_create("voted-for", start=False)
    lab.controllers[other].daemon.start()


@case()
def minority_answers_only_stale_reads(run):
    lab = run.lab
    leader = lab.leader()
    survivor, *others = sorted(lab.controllers, key=lambda name: name == leader)
    for name in others:
        lab.controllers[name].daemon.kill()
    result = lab.cli("host", "list", "--timeout", "2", check=False)
    assert result.status in (10, 11) and result.stderr, f"{result.status}: {result.stderr}"
    until(lambda: [host["state"] for host in lab.cli("host", "list", "--stale").json] == ["unknown"] * len(lab.hosts), 60,
          f"{survivor} to say that it knows of no host")
    for name in others:
        lab.controllers[name].daemon.start()
    lab.leader()
    lab.wait_hosts()


@case()
def guests_shut_down_before_their_host(run):
    """As drover-guests.service has it done when the system goes down."""
    lab = run.lab
    node = lab.hosts["h1"]
    for name, host in (("early", "h1"), ("late", "h1"), ("elsewhere", "h2")):
        lab.vm_create(name, host=host)
    ids = {name: lab.vm(name)["id"] for name in ("early", "late", "elsewhere")}
    hasty = f"{lab.directory}/hasty.ini"
    with open(node.config) as file:
        text = file.read()
    with open(hasty, "w") as file:
        file.write(text.replace("[host]\n", "[host]\nshutdown_seconds = 1\n", 1))
    call = [node.argv[0], "--shutdown-guests", "--config"]
    begun = time.monotonic()
    # One that does not hear it is named, and holds nobody up for longer than was said.
    (stuck,) = lab.qemus(ids["late"])["h1"]
    os.kill(stuck, signal.SIGSTOP)
    done = subprocess.run([*call, hasty], capture_output=True, text=True, timeout=60)
    os.kill(stuck, signal.SIGCONT)
    assert done.returncode == 11 and "not shut down within 1 s" in done.stderr and "late" in done.stderr, done
    done = subprocess.run([*call, node.config], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done
    until(lambda: lab.qemus(ids["early"]) == lab.qemus(ids["late"]) == {}, 60, "the ends of its guests")
    assert list(lab.qemus(ids["elsewhere"])) == ["h2"]
    until(lambda: {lab.vm(name)["state"] for name in ("early", "late")} <= {"stopped", "none"}, 60, "the stops to be known")
    # Called more than once, and pressed once: a guest may take another press for something else.
    with open(node.daemon.log) as file:
        pressed = [line for line in file if "event=guest.power_button" in line]
    for name in ("early", "late"):
        times = sum(ids[name] in line for line in pressed)
        assert 1 <= times <= 1 + (time.monotonic() - begun) / 30, pressed
    # None begins there any more, until the daemon is another one: neither when it is asked for nor by placement.
    def going():
        return [host["name"] for host in lab.host_list() if host.get("shutting_down")]

    until(lambda: going() == ["h1"], 60, "the host's word that it is being shut down")
    job_id = lab.cli("vm", "start", "early", "--host", "h1", "--async").json["id"]
    until(lambda: "being shut down" in json.dumps(lab.job(job_id)), 60, "the start to be refused")
    lab.job_wait(job_id)
    lab.cli("vm", "start", "late")
    assert lab.vm("late")["owner"] != "h1", lab.vm("late")
    node.daemon.stop()
    node.daemon.start()
    until(lambda: not going(), 60, "the host's word that it is up again")
    lab.wait_hosts()
    lab.cli("vm", "start", "early", "--host", "h1")
    lab.vm_delete("elsewhere")
