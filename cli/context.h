/* Whom to ask and as whom: the command line's configuration file. */
#ifndef CLI_CONTEXT_H
#define CLI_CONTEXT_H

#include "base/err.h"
#include "proto/wire.h"

#define CONTEXT_CONTROLLERS_MAX 16

struct context_controller {
    uint8_t public_key[KEY_BYTES];
    char address[WIRE_ADDRESS_MAX]; /* tcp://IP:PORT */
};

struct context {
    char path[512]; /* of the file it came from */
    struct key_pair key;
    struct context_controller controllers[CONTEXT_CONTROLLERS_MAX];
    size_t controller_count;
};

/* Reads `path`, or where that is NULL the first file there is of $DROVER_CONFIG, ~/.config/drover/cli.conf and
 * /etc/drover/cli.conf; then the key it names. Wipe with context_wipe(): it holds the user's secret key. */
MUST_CHECK int context_load(const char *path, struct err *err, struct context *out);
void context_wipe(struct context *context);
/* "z85pub tcp://IP:PORT". */
MUST_CHECK int context_controller_parse(const char *text, struct err *err, struct context_controller *out);
/* What the file looks like. */
void context_print_manual(FILE *out);

#endif
