/* Following a job to its end. */
#ifndef CLI_WAIT_H
#define CLI_WAIT_H

#include "cli/cli.h"

/* Waits until the job is over, over elections and Ctrl-C (which ends the waiting, not the job). With `show` its steps
 * are printed as they happen. Take: drover__job_list_reply__free_unpacked(); it holds the one job. */
MUST_CHECK int wait_for_job(struct cli *cli, uint64_t id, bool show, struct err *err, Drover__JobListReply **out);
/* 0 for a job that succeeded, else the error a command ends with. */
MUST_CHECK int wait_verdict(const Drover__Job *job, struct err *err);

#endif
