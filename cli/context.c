#include "cli/context.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/config.h"

struct options {
    char *key;
    char *controllers;
};

static const struct config_key keys[] = {
    {"user.key", CONFIG_STRING, offsetof(struct options, key), NULL, 0, 0,
        "your secret key, made by 'drover keygen'; relative to this file, or with ~/"},
    {"controllers.controller", CONFIG_LIST, offsetof(struct options, controllers), NULL, 0, 0,
        "public key and API address of a controller; once for each: KEY tcp://IP:PORT"},
    {NULL},
};

void context_print_manual(FILE *out)
{
    config_print_manual(keys, out);
}

/* The key's path: absolute, in the home directory, or beside the configuration. */
static char *key_path(const char *config, const char *key)
{
    const char *home = getenv("HOME"), *slash = strrchr(config, '/');
    if (key[0] == '/')
        return mem_strdup(key);
    if (key[0] == '~' && key[1] == '/' && home)
        return mem_printf("%s%s", home, key + 1);
    return slash ? mem_printf("%.*s/%s", (int)(slash - config), config, key) : mem_strdup(key);
}

static int context_find(const char *given, struct err *err, char *out, size_t size)
{
    const char *home = getenv("HOME"), *named = getenv("DROVER_CONFIG");
    if (!given)
        given = named && named[0] ? named : NULL;
    if (given) {
        snprintf(out, size, "%s", given);
        return 0;
    }
    snprintf(out, size, "%s/.config/drover/cli.conf", home ? home : "");
    if (home && access(out, F_OK) == 0)
        return 0;
    snprintf(out, size, "/etc/drover/cli.conf");
    if (access(out, F_OK) == 0)
        return 0;
    return err_set(err, ERR_NOT_FOUND,
        "configuration: there is neither ~/.config/drover/cli.conf nor /etc/drover/cli.conf; name one with --config or "
        "$DROVER_CONFIG ('drover help config' shows how to write it)");
}

int context_load(const char *path, struct err *err, struct context *out)
{
    struct context context = {0};
    struct options options = {0};
    if (context_find(path, err, context.path, sizeof context.path) < 0)
        return -1;
    if (config_load(context.path, keys, err, &options) < 0) {
        size_t used = strlen(err->message);
        snprintf(err->message + used, sizeof err->message - used, "; 'drover help config' explains the file");
        return -1;
    }
    cleanup_free char *key = key_path(context.path, options.key);
    int status = peerlist_parse(
        options.controllers, CONTEXT_CONTROLLERS_MAX, err, context.controllers, &context.controller_count);
    if (status < 0)
        err_wrap(err, "configuration %s: controllers.controller", context.path);
    else
        status = key_load(key, err, &context.key);
    config_free(keys, &options);
    if (status == 0)
        *out = context;
    context_wipe(&context);
    return status;
}

void context_wipe(struct context *context)
{
    key_wipe(&context->key, sizeof context->key);
}
