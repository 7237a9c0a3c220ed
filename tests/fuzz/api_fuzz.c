/* What users send: bodies of requests, unpacked and checked as the API does before it believes them. The first byte
 * says what the rest is. What is let through must be bounded and safe to name in a log, a file name or a command line.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/ensure.h"
#include "controller/api/validate.h"
#include "proto/api.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_printable(const char *text, size_t max)
{
    ENSURE(strlen(text) <= max);
    for (const char *c = text; *c; c++)
        ENSURE((unsigned char)*c >= 0x20 && *c != 0x7f);
}

static void check_spec(const Drover__VmSpec *spec)
{
    struct err err;
    if (validate_vm_spec(spec, &err) < 0) {
        ENSURE(err.message[0] && err.code != ERR_NONE);
        return;
    }
    ENSURE(spec->name[0] && strspn(spec->name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(spec->name));
    ENSURE(spec->n_disks <= VALIDATE_DISKS_MAX && spec->n_nics <= VALIDATE_NICS_MAX && spec->vcpus > 0);
    check_printable(spec->cmdline, VALIDATE_CMDLINE_MAX);
    for (size_t i = 0; i < spec->n_disks; i++)
        check_printable(spec->disks[i]->path, 4096);
}

static void fuzz_create(const uint8_t *data, size_t size)
{
    Drover__VmCreateRequest *request = drover__vm_create_request__unpack(NULL, size, data);
    if (request && request->spec)
        check_spec(request->spec);
    drover__vm_create_request__free_unpacked(request, NULL);
}

static void fuzz_migrate(const uint8_t *data, size_t size)
{
    struct err err;
    Drover__VmMigrateRequest *request = drover__vm_migrate_request__unpack(NULL, size, data);
    if (request && request->options && validate_migration_options(request->options, &err) < 0)
        ENSURE(err.message[0]);
    drover__vm_migrate_request__free_unpacked(request, NULL);
}

static void fuzz_words(const uint8_t *data, size_t size)
{
    struct err err;
    char *text = mem_alloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    if (validate_name("VM", text, &err) == 0)
        check_printable(text, 63);
    if (validate_text("label", text, VALIDATE_TEXT_MAX, &err) == 0)
        check_printable(text, VALIDATE_TEXT_MAX);
    if (validate_address(text, &err) == 0)
        ENSURE(strncmp(text, "tcp://", 6) == 0);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] == 'c')
        fuzz_create(data + 1, size - 1);
    else if (data[0] == 'm')
        fuzz_migrate(data + 1, size - 1);
    else
        fuzz_words(data + 1, size - 1);
    return 0;
}
