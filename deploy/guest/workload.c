/* The program a Drover test guest runs: loads, services, and the power button.
 *
 *   workload SPEC     SPEC is the value of drover.run= (loads_run in service.h)
 *
 * Started by /init (init.sh). Prints "drover-guest: ready" on the console once the loads run and the services answer,
 * then waits for the power button for ever: QEMU's system_powerdown ends the guest as it would end any other. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "service.h"

#define BUTTONS_MAX 8

static unsigned buttons_open(struct pollfd *buttons)
{
    unsigned count = 0;
    DIR *dir = opendir("/dev/input");
    if (dir == NULL) {
        return 0;
    }
    for (const struct dirent *entry; count < BUTTONS_MAX && (entry = readdir(dir)) != NULL;) {
        if (strncmp(entry->d_name, "event", 5) == 0) {
            int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
            if (fd >= 0) {
                buttons[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
            }
        }
    }
    closedir(dir);
    return count;
}

static int pressed(int fd)
{
    struct input_event event;
    return read(fd, &event, sizeof(event)) == sizeof(event) && event.type == EV_KEY && event.code == KEY_POWER &&
           event.value == 1;
}

void power_off(void)
{
    printf("drover-guest: powering off\n");
    sync();
    reboot(RB_POWER_OFF);
}

/* Goes on in a child; the parent returns to /init once the child closes its end of the pipe. */
static void background(int *ready)
{
    int ends[2];
    char none;

    if (pipe2(ends, O_CLOEXEC) != 0) {
        _exit(1);
    }
    if (fork() != 0) {
        close(ends[1]);
        _exit(read(ends[0], &none, 1) < 0);
    }
    close(ends[0]);
    *ready = ends[1];
}

int main(int argc, char **argv)
{
    struct pollfd buttons[BUTTONS_MAX];
    int ready;

    background(&ready);
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *problem = argc > 1 ? loads_run(argv[1]) : NULL;
    if (problem != NULL) {
        printf("drover-guest: drover.run=%s: %s\n", argv[1], problem);
    }
    if (services_start() != 0) {
        printf("drover-guest: the services did not start\n");
        return 1;
    }
    unsigned count = buttons_open(buttons);
    printf("drover-guest: ready\n");
    close(ready);
    for (;;) {
        if (poll(buttons, count, -1) > 0) {
            for (unsigned i = 0; i < count; i++) {
                if ((buttons[i].revents & POLLIN) != 0 && pressed(buttons[i].fd)) {
                    power_off();
                }
            }
        }
    }
}
