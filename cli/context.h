/* Whom to ask and as whom: the command line's configuration file. */
#ifndef CLI_CONTEXT_H
#define CLI_CONTEXT_H

#include "base/err.h"
#include "proto/peerlist.h"

#define CONTEXT_CONTROLLERS_MAX 16

struct context {
    char path[512]; /* of the file it came from */
    struct key_pair key;
    struct peerlist_entry controllers[CONTEXT_CONTROLLERS_MAX];
    size_t controller_count;
};

/* Reads `path`, or where that is NULL the first file there is of $DROVER_CONFIG, ~/.config/drover/cli.conf and
 * /etc/drover/cli.conf; then the key it names. Wipe with context_wipe(): it holds the user's secret key. */
MUST_CHECK int context_load(const char *path, struct err *err, struct context *out);
void context_wipe(struct context *context);
/* What the file looks like. */
void context_print_manual(FILE *out);

#endif
