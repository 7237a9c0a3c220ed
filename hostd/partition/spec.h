/* What a VM is asked to be: checked at the border, kept as JSON in the partition's record. Pure. */
#ifndef HOSTD_PARTITION_SPEC_H
#define HOSTD_PARTITION_SPEC_H

#include <jansson.h>

#include "base/err.h"
#include "proto/types.pb-c.h"

#define SPEC_DISKS_MAX  16
#define SPEC_NICS_MAX   8
#define SPEC_VCPUS_MAX  255
#define SPEC_MEMORY_MIN (16ull << 20)
#define SPEC_MEMORY_MAX (16ull << 40)

/* Says what is wrong with it, if anything. Whether files and switches exist is found out when it is used. */
MUST_CHECK int spec_check(const Drover__VmSpec *spec, struct err *err);
/* Take: drover__vm_spec__free_unpacked(). */
Drover__VmSpec *spec_copy(const Drover__VmSpec *spec);
/* Replaces disk `i` by a copy. */
void spec_put_disk(Drover__VmSpec *spec, size_t i, const Drover__Disk *disk);
/* Take: json_decref(). */
json_t *spec_to_json(const Drover__VmSpec *spec);
/* The result is checked. Take, as of spec_copy(). */
MUST_CHECK int spec_from_json(const json_t *json, struct err *err, Drover__VmSpec **out);

#endif
