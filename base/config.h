/* Daemon configuration: an ini file read through one table, which also makes `--help`. The table is the manual: every
 * key has its meaning, its default and its check there and nowhere else.
 *
 *   static const struct config_key keys[] = {
 *       {"log.level", CONFIG_STRING, offsetof(struct options, level), "info", 0, 0, "error, warn or info"},
 *       {"raft.election_ms", CONFIG_UINT, offsetof(struct options, ms), "500", 100, 60000, "election timeout"},
 *       {NULL}};
 *
 * A string field is `char *` that the struct owns (config_free releases them); CONFIG_UINT is uint64_t, CONFIG_BOOL is
 * bool, CONFIG_DOUBLE is double. Sizes are written as for config_parse_size(). A key without default (NULL) is
 * required. CONFIG_LIST is a `char *` that gathers repeated keys, one value a line. */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum config_type { CONFIG_STRING, CONFIG_UINT, CONFIG_BOOL, CONFIG_DOUBLE, CONFIG_LIST };

struct config_key {
    const char *name; /* section.key */
    enum config_type type;
    size_t offset;
    const char *fallback;
    uint64_t min, max; /* for CONFIG_UINT; both 0: no limit */
    const char *help;
};

/* Fills `options` from the file: defaults first. An unknown key, a bad value or a missing required key is an error that
 * names the file, the line and the key; so is a key that is given twice (but for CONFIG_LIST), and a line that begins
 * with a blank, comments aside. On failure nothing has to be freed. */
MUST_CHECK int config_load(const char *path, const struct config_key *keys, struct err *err, void *options);
/* The same from text in memory; `name` is for messages. */
MUST_CHECK int config_parse(
    const char *name, const char *text, const struct config_key *keys, struct err *err, void *options);
void config_free(const struct config_key *keys, void *options);
/* Writes the table as a commented configuration file with the defaults. */
void config_print_manual(const struct config_key *keys, FILE *out);

/* Parses a whole number that K, M, G or T may follow, in either case, and "iB" after that: 2G, 2g and 2GiB are the
 * same. The command line reads its sizes by this, too. */
MUST_CHECK int config_parse_size(const char *text, struct err *err, uint64_t *out);

#endif
