#include "cli/keyarg.h"

#include <string.h>
#include <unistd.h>

int keyarg_read(const char *given, struct err *err, char out[static KEY_TEXT])
{
    uint8_t key[KEY_BYTES];
    struct err ignored;
    size_t len = strlen(given);
    if (len > 4 && strcmp(given + len - 4, ".key") == 0)
        return err_set(
            err, ERR_INVALID, "%.200s is a secret key and stays where it is; give the .pub file beside it", given);
    if (access(given, F_OK) == 0) {
        if (key_load_public(given, err, key) < 0)
            return -1;
    } else if (len != KEY_TEXT - 1 || key_parse(given, &ignored, key) < 0) {
        return err_set(err, ERR_INVALID, "'%.200s' is neither a .pub file nor a public key of 40 characters", given);
    }
    key_format(key, out);
    return 0;
}
