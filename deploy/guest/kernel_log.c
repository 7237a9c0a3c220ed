#include "kernel_log.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const complaints[] = {
    "soft lockup",
    "hard LOCKUP",
    "detected stall",        /* of RCU */
    "blocked for more than", /* a hung task */
    "timekeeping watchdog",  /* of clocksources */
    "Marking clocksource",
    "clocksource is unstable",
    "time jumped",
    "time went backwards",
};

static int complains(const char *text)
{
    for (size_t i = 0; i < sizeof(complaints) / sizeof(complaints[0]); i++) {
        if (strstr(text, complaints[i]) != NULL) {
            return 1;
        }
    }
    return 0;
}

int kernel_log_complaints(char *line, size_t size)
{
    char record[2048]; /* one a read */
    ssize_t got;
    int count = 0;
    int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    line[0] = '\0';
    if (fd < 0) {
        return -1;
    }
    while ((got = read(fd, record, sizeof(record) - 1)) > 0) {
        record[got] = '\0';
        record[strcspn(record, "\n")] = '\0';
        if (complains(record)) {
            snprintf(line, size, "%s", record);
            count++;
        }
    }
    close(fd);
    return count;
}
