/* A public key on the command line: the name of a .pub file, or its 40 characters. */
#ifndef CLI_KEYARG_H
#define CLI_KEYARG_H

#include "proto/keys.h"

MUST_CHECK int keyarg_read(const char *given, struct err *err, char out[static KEY_TEXT]);

#endif
