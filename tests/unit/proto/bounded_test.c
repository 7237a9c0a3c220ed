#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "proto/bounded.h"
#include "proto/frame.h"
#include "proto/host.pb-c.h"
#include "proto/wire.h"

#define PARTITIONS 2048 /* controller/fleet/fleet.h takes no more */

/* As many fields `tag` without contents as go into the longest message. Take. */
static uint8_t *empties(uint8_t tag, size_t *len)
{
    *len = WIRE_MESSAGE_MAX;
    uint8_t *data = mem_alloc(*len);
    for (size_t i = 0; i < *len; i += 2) {
        data[i] = tag;
        data[i + 1] = 0;
    }
    return data;
}

static void test_what_grows_out_of_all_proportion_is_refused(void **state)
{
    (void)state;
    size_t len;
    uint8_t *data = empties(0x12, &len); /* HostHelloRequest.partitions */
    assert_null(bounded_unpack(&drover__host_hello_request__descriptor, data, len));
    free(data);
    data = empties(0x7a, &len); /* a field that no frame has */
    struct err err;
    Drover__Frame *frame;
    assert_int_equal(frame_decode(data, len, len, &err, &frame), -1);
    free(data);
}

/* A host with as many guests as there may be, each saying as little as it can. */
static void test_what_hosts_say_is_taken(void **state)
{
    (void)state;
    static Drover__PartitionReport reports[PARTITIONS];
    static Drover__PartitionReport *pointers[PARTITIONS];
    static char vm_id[] = "0b5c9a52-3f0e-4d3c-9a43-6a1f1d6f1c11";
    Drover__HeartbeatRequest request = DROVER__HEARTBEAT_REQUEST__INIT;
    Drover__Load load = DROVER__LOAD__INIT;
    for (size_t i = 0; i < PARTITIONS; i++) {
        drover__partition_report__init(&reports[i]);
        reports[i].vm_id = vm_id;
        reports[i].load = &load;
        pointers[i] = &reports[i];
    }
    request.partitions = pointers;
    request.n_partitions = PARTITIONS;
    size_t len = drover__heartbeat_request__get_packed_size(&request);
    uint8_t *data = mem_alloc(len);
    drover__heartbeat_request__pack(&request, data);
    Drover__HeartbeatRequest *taken = bounded_unpack(&drover__heartbeat_request__descriptor, data, len);
    assert_non_null(taken);
    assert_int_equal(taken->n_partitions, PARTITIONS);
    assert_string_equal(taken->partitions[PARTITIONS - 1]->vm_id, vm_id);
    drover__heartbeat_request__free_unpacked(taken, NULL);
    assert_null(bounded_unpack(&drover__heartbeat_request__descriptor, data, len - 1)); /* cut off */
    free(data);
}

/* What is taken is packed again, into the log for one, and must then be read by everybody. */
static void test_what_could_not_be_read_again_is_refused(void **state)
{
    (void)state;
    static const uint8_t bare[] = {0x80, 0x80, 0x00, 0x01};                           /* field 0, in three bytes */
    static const uint8_t nested[] = {0x0a, 0x00, 0x12, 0x04, 0x80, 0x80, 0x00, 0x01}; /* in the second message of two */
    static const uint8_t listed[] = {0x12, 0x00, 0x12, 0x03, 0x80, 0x00, 0x01};
    static const uint8_t later[] = {0xf8, 0x3e, 0x01}; /* a field of later programs */
    assert_null(BOUNDED_UNPACK(load_history, bare, sizeof bare));
    assert_null(BOUNDED_UNPACK(load_history, nested, sizeof nested));
    assert_null(BOUNDED_UNPACK(load_history, listed, sizeof listed));
    Drover__LoadHistory *taken = BOUNDED_UNPACK(load_history, later, sizeof later);
    assert_non_null(taken);
    Drover__LoadHistory *copy = bounded_copy(taken);
    assert_int_equal(copy->base.n_unknown_fields, 1);
    drover__load_history__free_unpacked(copy, NULL);
    drover__load_history__free_unpacked(taken, NULL);
}

static void test_a_copy_is_whole_and_its_own(void **state)
{
    (void)state;
    Drover__Load load = DROVER__LOAD__INIT;
    Drover__Load *peaks[] = {&load, &load};
    Drover__LoadHistory history = DROVER__LOAD_HISTORY__INIT;
    history.peaks = peaks;
    history.n_peaks = 2;
    Drover__LoadHistory *copy = bounded_copy(&history);
    assert_int_equal(copy->n_peaks, 2);
    assert_ptr_not_equal(copy->peaks[0], &load);
    assert_null(copy->overhead);
    drover__load_history__free_unpacked(copy, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_grows_out_of_all_proportion_is_refused),
        cmocka_unit_test(test_what_hosts_say_is_taken),
        cmocka_unit_test(test_what_could_not_be_read_again_is_refused),
        cmocka_unit_test(test_a_copy_is_whole_and_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
