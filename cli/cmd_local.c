/* What needs no cluster: keys, version, help, completion. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/help.h"
#include "proto/keys.h"

static int keygen_run(struct cli *cli, const struct args *args, struct err *err)
{
    struct key_pair key;
    char text[KEY_TEXT];
    const char *prefix = args->words[0];
    if (key_generate(err, &key) < 0)
        return err_wrap(err, "keygen %.200s", prefix);
    key_format(key.public_key, text);
    int status = key_save(prefix, &key, err);
    key_wipe(&key, sizeof key);
    if (status < 0)
        return err_wrap(err, "keygen %.200s", prefix);
    if (cli->format != OUTPUT_TABLE) {
        json_t *secret = json_sprintf("%s.key", prefix), *public = json_sprintf("%s.pub", prefix);
        output_document(cli->format,
            json_pack("{s:o, s:o, s:s}", "secret_file", secret, "public_file", public, "public_key", text));
        return 0;
    }
    output_field("Secret key", "%s.key (keep it where it is; only you can read it)", prefix);
    output_field("Public key", "%s.pub", prefix);
    printf("%s\n", text);
    return 0;
}

static int version_run(struct cli *cli, const struct args *args, struct err *err)
{
    (void)args;
    (void)err;
    if (cli->format == OUTPUT_TABLE)
        printf("drover %s, protocol %d to %d\n", DROVER_VERSION, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
    else
        output_document(cli->format, json_pack("{s:s, s:i, s:i}", "version", DROVER_VERSION, "protocol_min",
                                         WIRE_PROTOCOL_MIN, "protocol_max", WIRE_PROTOCOL_MAX));
    return 0;
}

static const struct command keygen = {
    .path = "keygen",
    .arguments = "PREFIX",
    .summary = "make a key pair: PREFIX.key and PREFIX.pub",
    .text = "Controllers, hosts and users are known by their keys. The "
            ".key file is secret and stays on the machine where it was\n"
            "made; the .pub file is for the others. Files that are there already are never overwritten.",
    .example = "drover keygen ~/.config/drover/anna\ndrover keygen /etc/drover/host",
    .run = keygen_run,
};
static const struct command version = {
    .path = "version",
    .summary = "this program's version",
    .example = "drover version",
    .run = version_run,
};

const struct command *const cmd_local[] = {&keygen, &version, &cmd_completion, &cmd_help, NULL};
