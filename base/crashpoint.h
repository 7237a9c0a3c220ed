/* Points at which a program can be made to die as by SIGKILL, so that tests can kill every process at every step that
 * matters, and see that one owner is left and nothing else.
 *
 *   crashpoint("source", "handed-over");      the point `source.handed-over` has been reached
 *
 * All names are in one table (crashpoint.c), which `drover-migrate --crash-points` prints; a test walks through it and
 * fails where a point is never reached. Points are part of every build, so that what is tested is what is installed:
 * unless DROVER_CRASH_FILE is set when the program starts, a point is one branch and does nothing.
 *
 * With it, each point looks whether that file names it:
 *
 *   NAME              this process dies here
 *   NAME companion    the process it looks after dies instead (an engine's QEMU), and this one goes on
 *   NAME pause        this process stops here (SIGSTOP) until it is continued: something else can be done to it
 *
 * The file is first renamed to FILE.hit: so it counts once, also where the process is started again, and whoever put it
 * there sees that the point was reached. A point that the table does not name is written to FILE.unlisted.
 * Single-threaded: only the loop's thread has points. */
#ifndef BASE_CRASHPOINT_H
#define BASE_CRASHPOINT_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#define CRASHPOINT_FILE "DROVER_CRASH_FILE"

/* Reads the environment; first thing in main(). `companion`: 0 when there is none. */
void crashpoint_open(pid_t companion);
/* One name a line. */
void crashpoint_print(FILE *out);

extern bool crashpoint_watched;
void crashpoint_reached(const char *where, const char *what);

static inline void crashpoint(const char *where, const char *what)
{
    if (__builtin_expect(crashpoint_watched, 0))
        crashpoint_reached(where, what);
}

#endif
