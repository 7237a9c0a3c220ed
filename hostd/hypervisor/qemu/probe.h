/* Is KVM usable here? That /dev/kvm opens says little: on nested or emulated machines every ioctl works while guest
 * code in ring 0 is emulated at microseconds an instruction, and a guest does not boot in minutes. So the probe runs a
 * loop of about a thousand instructions in 64-bit ring 0 and takes the time. The verdict is pure. */
#ifndef HOSTD_HYPERVISOR_QEMU_PROBE_H
#define HOSTD_HYPERVISOR_QEMU_PROBE_H

#include <stddef.h>

/* Native code takes well under 10 ns an instruction with the entry and exit included, emulation 1000 and more. */
#define PROBE_NATIVE_NS 100.0

struct probe_result {
    enum { PROBE_RAN, PROBE_NO_DEVICE, PROBE_BROKEN, PROBE_TIMED_OUT } outcome;
    int error;             /* errno of PROBE_NO_DEVICE and PROBE_BROKEN */
    const char *step;      /* what failed, for PROBE_BROKEN; lent for ever */
    double instruction_ns; /* of PROBE_RAN */
};

/* Runs the loop in a process of its own that is killed when it takes longer than two seconds. */
struct probe_result probe_run(void);

/* "kvm" or "tcg" (lent for ever) for what the operator wants (auto, kvm, tcg); `reason` says why, for people. */
const char *probe_verdict(const char *wanted, const struct probe_result *result, size_t size, char *reason);

#endif
