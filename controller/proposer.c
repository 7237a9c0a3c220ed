#include "controller/proposer.h"

#include <stdlib.h>

#include "base/clock.h"
#include "controller/pb.h"
#include "controller/state/version.h"

struct proposal {
    proposer_fn fn;
    void *user;
};

Drover__Command *proposer_command(void)
{
    Drover__Command *command = pb_new(&drover__command__descriptor);
    command->now_ms = clock_wall_ms();
    return command;
}

static void proposal_done(void *user, const struct err *err, const uint8_t *result, size_t len)
{
    struct proposal *proposal = user;
    struct err broken;
    cleanup_pb Drover__CommandResult *answer = err ? NULL : pb_unpack(&drover__command_result__descriptor, result, len);
    if (!err && !answer) {
        err_set(&broken, ERR_INTERNAL, "the state gave no result");
        err = &broken;
    }
    proposal->fn(proposal->user, err, answer);
    free(proposal);
}

void proposer_pack(Drover__Command *command, struct buf *out)
{
    command->version = version_of_command(command);
    pb_pack(command, out);
    pb_free(command);
}

void proposer_submit(struct replica *replica, Drover__Command *command, proposer_fn fn, void *user)
{
    cleanup_buf struct buf packed = {0};
    struct proposal *proposal = mem_zalloc(sizeof *proposal);
    *proposal = (struct proposal){fn, user};
    proposer_pack(command, &packed);
    replica_submit(replica, packed.data, packed.len, proposal_done, proposal);
}
