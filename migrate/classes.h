/* classes: what became of the pages that were looked at, for whoever wants to know where the bytes went. */
#ifndef MIGRATE_CLASSES_H
#define MIGRATE_CLASSES_H

#include <stddef.h>
#include <stdint.h>

enum page_class {
    CLASS_ZERO,   /* zero: named, or not even that where the destination has zeros already */
    CLASS_SILENT, /* written, but with what was there: not sent */
    CLASS_REUSED, /* as the destination has it from the guest's last visit: named */
    CLASS_DELTA,  /* sent as what changed */
    CLASS_LZ4,    /* sent in a block that LZ4 made smaller */
    CLASS_RAW,    /* sent in a block that it did not */
    CLASSES
};

struct classes {
    uint64_t pages[CLASSES];
    uint64_t bytes[CLASSES]; /* on the wire, without the headers and seals of messages */
};

/* As told in events and records. */
static inline const char *class_name(enum page_class class)
{
    static const char *const names[CLASSES] = {"zero", "silent", "reused", "delta", "lz4", "raw"};
    return names[class];
}

static inline void classes_add(struct classes *sum, const struct classes *part)
{
    for (size_t i = 0; i < CLASSES; i++) {
        sum->pages[i] += part->pages[i];
        sum->bytes[i] += part->bytes[i];
    }
}

/* Pages that went over the wire with something in them. */
static inline uint64_t classes_sent(const struct classes *classes)
{
    return classes->pages[CLASS_DELTA] + classes->pages[CLASS_LZ4] + classes->pages[CLASS_RAW];
}

#endif
