/* The record file: what has happened that cannot be taken back, for whoever finds the engine dead (README.md). */
#ifndef MIGRATE_RECORD_H
#define MIGRATE_RECORD_H

#include "base/err.h"

/* Replaces the record; on return it is there for every later reader, but not for one after a loss of power: the guest
 * stands still meanwhile, and hostd trusts no record of another boot (README.md). */
MUST_CHECK int record_write(const char *path, const char *migration_id, const char *phase, struct err *err);

/* A record that takes back an earlier one, `failed`, is made before there is one: a file beside it (`path`.failed) that
 * is only renamed when it is needed, which takes no room on the disk. */
MUST_CHECK int record_prepare_failed(const char *path, const char *migration_id, struct err *err);
/* The prepared record is the record, and on return outlives a loss of power, too. -1: either may be there; the same may
 * be asked for again. */
MUST_CHECK int record_take_back(const char *path, const char *migration_id, struct err *err);
/* Removes what was prepared. */
void record_unprepare(const char *path);

/* As record_write(), for a hand-over after which pages follow: an engine that dies then can be replaced
 * (policy.resume). */
MUST_CHECK int record_write_postcopy(const char *path, const char *migration_id, const char *phase, struct err *err);
/* True if the record says `phase` of this very migration. */
bool record_says(const char *path, const char *migration_id, const char *phase);
/* True if it says `owner` of this very migration, with pages of the guest still at its source. */
bool record_fetching(const char *path, const char *migration_id);

#endif
