#include "hostd/hypervisor/qemu/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

#define PROBE_TIMEOUT_MS 2000
#define PROBE_LOOPS      500 /* of two instructions each */
#define PROBE_LAPS       5
#define MEMORY_BYTES     0x10000u
#define CODE_AT          0x1000u
#define PML4_AT          0x2000u
#define PDPT_AT          0x3000u
#define PD_AT            0x4000u

/* mov ecx, PROBE_LOOPS; again: dec ecx; jnz again; hlt */
static const uint8_t probe_code[] = {0xb9, PROBE_LOOPS & 0xff, PROBE_LOOPS >> 8, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0xf4};

enum probe_step { STEP_VERSION, STEP_VM, STEP_MEMORY, STEP_CPU, STEP_REGISTERS, STEP_RUN, STEP_EXIT };
static const char *const step_names[] = {"KVM_GET_API_VERSION", "KVM_CREATE_VM", "KVM_SET_USER_MEMORY_REGION",
    "KVM_CREATE_VCPU", "KVM_SET_SREGS", "KVM_RUN", "the loop's end"};

struct probe_message {
    enum probe_step failed;
    int error; /* 0: it ran */
    double instruction_ns;
};

/* Long mode with the first 2 MiB mapped one to one: the least that runs 64-bit code in ring 0. */
static int probe_long_mode(int cpu, uint8_t *memory)
{
    *(uint64_t *)(memory + PML4_AT) = PDPT_AT | 3;
    *(uint64_t *)(memory + PDPT_AT) = PD_AT | 3;
    *(uint64_t *)(memory + PD_AT) = 0x83; /* present, writable, 2 MiB */
    memcpy(memory + CODE_AT, probe_code, sizeof probe_code);

    struct kvm_sregs s;
    if (ioctl(cpu, KVM_GET_SREGS, &s) < 0)
        return -1;
    struct kvm_segment code = {
        .base = 0, .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = code;
    data.type = 3;
    data.selector = 16;
    data.l = 0;
    data.db = 1;
    s.cs = code;
    s.ds = s.es = s.fs = s.gs = s.ss = data;
    s.cr3 = PML4_AT;
    s.cr4 = 0x20;       /* PAE */
    s.cr0 = 0x80000033; /* PG, NE, ET, MP, PE */
    s.efer = 0x500;     /* LME, LMA */
    return ioctl(cpu, KVM_SET_SREGS, &s);
}

/* Runs the loop once from its start; returns its time, or -1. */
static double probe_lap(int cpu, const struct kvm_run *run, struct probe_message *out)
{
    struct kvm_regs regs = {.rip = CODE_AT, .rsp = MEMORY_BYTES, .rflags = 2};
    if (ioctl(cpu, KVM_SET_REGS, &regs) < 0) {
        *out = (struct probe_message){STEP_REGISTERS, errno, 0};
        return -1;
    }
    uint64_t start = clock_now_ns();
    if (ioctl(cpu, KVM_RUN, 0) < 0) {
        *out = (struct probe_message){STEP_RUN, errno, 0};
        return -1;
    }
    uint64_t end = clock_now_ns();
    if (run->exit_reason != KVM_EXIT_HLT) {
        *out = (struct probe_message){STEP_EXIT, EPROTO, 0};
        return -1;
    }
    return (double)(end - start);
}

static struct probe_message probe_fail(enum probe_step step)
{
    return (struct probe_message){step, errno ? errno : EIO, 0};
}

static struct probe_message probe_measure(int kvm)
{
    errno = 0;
    if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return probe_fail(STEP_VERSION);
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0)
        return probe_fail(STEP_VM);
    uint8_t *memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY_BYTES, .userspace_addr = (uint64_t)memory};
    if (memory == MAP_FAILED || ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return probe_fail(STEP_MEMORY);
    int cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    int run_bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    struct kvm_run *run = cpu < 0 || run_bytes <= 0
                              ? MAP_FAILED
                              : mmap(NULL, (size_t)run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
    if (run == MAP_FAILED)
        return probe_fail(STEP_CPU);
    if (probe_long_mode(cpu, memory) < 0)
        return probe_fail(STEP_REGISTERS);
    struct probe_message message = {0};
    /* The first lap also pays for page faults of the guest's memory, and a busy machine may interrupt any: the best
     * counts. */
    for (int lap = 0; lap < PROBE_LAPS; lap++) {
        double ns = probe_lap(cpu, run, &message);
        if (ns < 0)
            break;
        ns /= 2.0 * PROBE_LOOPS;
        if (lap == 0 || ns < message.instruction_ns)
            message.instruction_ns = ns;
    }
    return message;
}

struct probe_result probe_run(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        return (struct probe_result){.outcome = PROBE_NO_DEVICE, .error = errno};
    struct probe_result result = {.outcome = PROBE_BROKEN, .step = "starting the probe"};
    int ends[2];
    pid_t pid = -1;
    if (pipe2(ends, O_CLOEXEC) < 0) {
        result.error = errno;
        close(kvm);
        return result;
    }
    pid = fork();
    if (pid == 0) {
        struct probe_message message = probe_measure(kvm);
        _exit(write(ends[1], &message, sizeof message) == (ssize_t)sizeof message ? 0 : 1);
    }
    result.error = errno;
    close(ends[1]);
    close(kvm);
    if (pid > 0) {
        struct pollfd ready = {.fd = ends[0], .events = POLLIN};
        struct probe_message message;
        if (poll(&ready, 1, PROBE_TIMEOUT_MS) <= 0)
            result.outcome = PROBE_TIMED_OUT;
        else if (read(ends[0], &message, sizeof message) != (ssize_t)sizeof message)
            result = (struct probe_result){.outcome = PROBE_BROKEN, .error = EPIPE, .step = "the probe's process"};
        else if (message.error)
            result = (struct probe_result){
                .outcome = PROBE_BROKEN, .error = message.error, .step = step_names[message.failed]};
        else
            result = (struct probe_result){.outcome = PROBE_RAN, .instruction_ns = message.instruction_ns};
        kill(pid, SIGKILL); /* our own child, not yet waited for: the id is still its */
        waitpid(pid, NULL, 0);
    }
    close(ends[0]);
    return result;
}

const char *probe_verdict(const char *wanted, const struct probe_result *r, size_t size, char *reason)
{
    if (strcmp(wanted, "auto") != 0) {
        snprintf(reason, size, "hypervisor.accelerator = %s in the configuration", wanted);
        return strcmp(wanted, "kvm") == 0 ? "kvm" : "tcg";
    }
    switch (r->outcome) {
    case PROBE_NO_DEVICE:
        snprintf(reason, size, "/dev/kvm cannot be opened: %s", strerror(r->error));
        return "tcg";
    case PROBE_BROKEN:
        snprintf(reason, size, "/dev/kvm does not work: %s: %s", r->step, strerror(r->error));
        return "tcg";
    case PROBE_TIMED_OUT:
        snprintf(reason, size, "/dev/kvm emulates: 1000 instructions took longer than %d ms", PROBE_TIMEOUT_MS);
        return "tcg";
    case PROBE_RAN:
        break;
    }
    if (r->instruction_ns > PROBE_NATIVE_NS) {
        snprintf(reason, size, "/dev/kvm emulates: %.0f ns an instruction in ring 0 (native: under %.0f)",
            r->instruction_ns, PROBE_NATIVE_NS);
        return "tcg";
    }
    snprintf(reason, size, "/dev/kvm runs guests natively: %.1f ns an instruction in ring 0", r->instruction_ns);
    return "kvm";
}
