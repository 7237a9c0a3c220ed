/* What this host remembers of things that are over, so that a message that comes late or twice changes nothing:
 *
 * - the result of every action by its key (job, step, method; a step and its undoing share the first two): asked again,
 *   it is answered again, not done again;
 * - per VM, the highest generation that ended here: a start or a migration under that generation or an older one is
 *   refused, whoever asks and however late.
 *
 * Both are bounded, oldest out first, and kept in one small file that is replaced before the answer leaves. On failure
 * to write it the action still counts; the failure is logged. Single-threaded. */
#ifndef HOSTD_LEDGER_H
#define HOSTD_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define LEDGER_ACTIONS_MAX     512
#define LEDGER_GENERATIONS_MAX 1024
#define LEDGER_TEXT_MAX        256

struct ledger;

/* Reads the file at `path`, which may be missing. One that cannot be made sense of is an error: guessing what has ended
 * could run a guest twice. Take: ledger_close(). */
MUST_CHECK int ledger_open(const char *path, struct err *err, struct ledger **out);
void ledger_close(struct ledger *ledger);

struct ledger_result {
    enum err_code code;         /* ERR_NONE: it was done */
    char text[LEDGER_TEXT_MAX]; /* the answer's text, or the error's */
};

struct ledger_key {
    uint64_t job_id;
    uint32_t step, method;
    int64_t created_ms; /* the job was: a cluster founded anew uses its numbers again; 0: not told, so any */
};

/* False for job 0, which is no job. */
bool ledger_key_same(const struct ledger_key *a, const struct ledger_key *b);
/* Lent until the next change; NULL: that action is not known. */
const struct ledger_result *ledger_find(const struct ledger *ledger, struct ledger_key key);
void ledger_remember(struct ledger *ledger, struct ledger_key key, enum err_code code, const char *text);

/* Highest generation of the VM that ended on this host; 0: none known. */
uint64_t ledger_ended(const struct ledger *ledger, const char *vm_id);
void ledger_end(struct ledger *ledger, const char *vm_id, uint64_t generation);

/* What it would write and read; pure. Take: free(). */
char *ledger_format(const struct ledger *ledger);
MUST_CHECK int ledger_parse(const char *text, size_t len, struct err *err, struct ledger **out);

#endif
