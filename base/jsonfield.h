/* jsonfield: fields of a JSON object that somebody else has written: none need be there, or be of the type we expect.
 */
#ifndef BASE_JSONFIELD_H
#define BASE_JSONFIELD_H

#include <jansson.h>
#include <stdint.h>

/* "": no text. Lent by the object, which may be NULL. */
static inline const char *jsonfield_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* 0: no number, or a negative one. */
static inline uint64_t jsonfield_count(const json_t *object, const char *key)
{
    json_int_t count = json_integer_value(json_object_get(object, key));
    return count > 0 ? (uint64_t)count : 0;
}

#endif
