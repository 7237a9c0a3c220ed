/* Messages as JSON: every type of field, set and unset. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/pbjson.h"
#include "proto/types.pb-c.h"
#include "sample.pb-c.h"

static void assert_json(const ProtobufCMessage *message, const char *expected)
{
    json_t *json = pbjson(message);
    assert_non_null(json);
    char *text = json_dumps(json, JSON_COMPACT);
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
    json_decref(json);
}

static void test_everything_set(void **state)
{
    (void)state;
    Sample__Leaf leaf = SAMPLE__LEAF__INIT, other = SAMPLE__LEAF__INIT;
    Sample__Everything e = SAMPLE__EVERYTHING__INIT;
    Sample__Leaf *leaves[] = {&leaf, &other};
    int64_t numbers[] = {INT64_MIN, 0, INT64_MAX};
    char *texts[] = {(char *)"a", (char *)"\"quoted\"\n"};
    protobuf_c_boolean flags[] = {1, 0};
    Sample__Colour colours[] = {SAMPLE__COLOUR__COLOUR_BLUE, SAMPLE__COLOUR__COLOUR_RED};
    ProtobufCBinaryData datas[] = {{0, NULL}, {1, (uint8_t *)"f"}, {2, (uint8_t *)"fo"}, {3, (uint8_t *)"foo"},
        {4, (uint8_t *)"foob"}, {3, (uint8_t *)"\xff\xfe\xfd"}};
    float singles[] = {0.5F, -2};
    leaf.name = (char *)"leaf";
    other.name = (char *)"b\xc3\xa4r";
    e.i32 = INT32_MIN;
    e.s32 = -1;
    e.sf32 = INT32_MAX;
    e.i64 = INT64_MIN;
    e.s64 = -2;
    e.sf64 = INT64_MAX;
    e.u32 = UINT32_MAX;
    e.f32 = 1;
    e.u64 = INT64_MAX;
    e.f64 = UINT64_MAX;
    e.single = 1.5F;
    e.twice = -0.25;
    e.flag = 1;
    e.colour = SAMPLE__COLOUR__COLOUR_DARK_GREEN;
    e.text = (char *)"text";
    e.data = datas[4];
    e.leaf = &leaf;
    e.has_maybe_number = 1;
    e.maybe_number = 0;
    e.maybe_text = (char *)"";
    e.maybe_leaf = &other;
    e.n_numbers = 3, e.numbers = numbers;
    e.n_texts = 2, e.texts = texts;
    e.n_flags = 2, e.flags = flags;
    e.n_colours = 2, e.colours = colours;
    e.n_datas = 6, e.datas = datas;
    e.n_leaves = 2, e.leaves = leaves;
    e.n_singles = 2, e.singles = singles;
    e.choice_case = SAMPLE__EVERYTHING__CHOICE_CHOSEN_LEAF;
    e.chosen_leaf = &leaf;
    assert_json(&e.base,
        "{\"i32\":-2147483648,\"s32\":-1,\"sf32\":2147483647,\"i64\":-9223372036854775808,\"s64\":-2,"
        "\"sf64\":9223372036854775807,\"u32\":4294967295,\"f32\":1,\"u64\":9223372036854775807,"
        "\"f64\":\"18446744073709551615\",\"single\":1.5,\"twice\":-0.25,\"flag\":true,\"colour\":\"dark-green\","
        "\"text\":\"text\",\"data\":\"Zm9vYg==\",\"leaf\":{\"name\":\"leaf\"},\"maybe_number\":0,\"maybe_text\":\"\","
        "\"maybe_leaf\":{\"name\":\"b\xc3\xa4r\"},\"numbers\":[-9223372036854775808,0,9223372036854775807],"
        "\"texts\":[\"a\",\"\\\"quoted\\\"\\n\"],\"flags\":[true,false],\"colours\":[\"blue\",\"red\"],"
        "\"datas\":[\"\",\"Zg==\",\"Zm8=\",\"Zm9v\",\"Zm9vYg==\",\"//79\"],"
        "\"leaves\":[{\"name\":\"leaf\"},{\"name\":\"b\xc3\xa4r\"}],\"singles\":[0.5,-2.0],"
        "\"chosen_number\":null,\"chosen_text\":null,\"chosen_leaf\":{\"name\":\"leaf\"}}");
}

static void test_nothing_set(void **state)
{
    (void)state;
    Sample__Everything e = SAMPLE__EVERYTHING__INIT;
    e.twice = NAN;
    e.single = INFINITY;
    e.text = (char *)"broken \xff\xc3";
    assert_json(&e.base,
        "{\"i32\":0,\"s32\":0,\"sf32\":0,\"i64\":0,\"s64\":0,\"sf64\":0,\"u32\":0,\"f32\":0,\"u64\":0,\"f64\":0,"
        "\"single\":null,\"twice\":null,\"flag\":false,\"colour\":\"red\",\"text\":\"broken ??\",\"data\":\"\","
        "\"leaf\":null,\"maybe_number\":null,\"maybe_text\":null,\"maybe_leaf\":null,\"numbers\":[],\"texts\":[],"
        "\"flags\":[],\"colours\":[],\"datas\":[],\"leaves\":[],\"singles\":[],"
        "\"chosen_number\":null,\"chosen_text\":null,\"chosen_leaf\":null}");
}

static void test_one_of(void **state)
{
    (void)state;
    Sample__Everything e = SAMPLE__EVERYTHING__INIT;
    e.choice_case = SAMPLE__EVERYTHING__CHOICE_CHOSEN_NUMBER;
    e.chosen_number = 7;
    json_t *json = pbjson(&e.base);
    assert_int_equal(json_integer_value(json_object_get(json, "chosen_number")), 7);
    assert_true(json_is_null(json_object_get(json, "chosen_text")));
    json_decref(json);
    e.choice_case = SAMPLE__EVERYTHING__CHOICE_CHOSEN_TEXT;
    e.chosen_text = (char *)"seven";
    json = pbjson(&e.base);
    assert_true(json_is_null(json_object_get(json, "chosen_number")));
    assert_string_equal(json_string_value(json_object_get(json, "chosen_text")), "seven");
    json_decref(json);
}

/* proto3, as our own messages are: defaults are written. */
static void test_own_messages(void **state)
{
    (void)state;
    Drover__HandOver hand_over = DROVER__HAND_OVER__INIT;
    assert_json(&hand_over.base, "{\"migration_id\":\"\",\"to_host\":\"\",\"generation\":0}");
    Drover__JobStep step = DROVER__JOB_STEP__INIT;
    step.state = DROVER__STEP_STATE__STEP_UNDONE;
    step.name = (char *)"move";
    assert_json(
        &step.base, "{\"name\":\"move\",\"state\":\"undone\",\"started_ms\":0,\"finished_ms\":0,\"detail\":\"\"}");
}

static void test_enums(void **state)
{
    (void)state;
    char out[64];
#define ENUM(type, value) pbjson_enum(&type##__descriptor, value, out)
    assert_string_equal(ENUM(drover__job_state, DROVER__JOB_STATE__JOB_SUCCEEDED), "succeeded");
    assert_string_equal(ENUM(drover__partition_state, DROVER__PARTITION_STATE__PARTITION_IN_DOUBT), "in-doubt");
    assert_string_equal(ENUM(drover__vm_desired, DROVER__VM_DESIRED__VM_DESIRED_RUNNING), "running");
    assert_string_equal(ENUM(drover__job_state, 99), "unknown");
    assert_string_equal(ENUM(sample__colour, SAMPLE__COLOUR__COLOUR_BLUE), "blue");
    assert_string_equal(ENUM(sample__size, SAMPLE__SIZE__BIG), "big");
    assert_string_equal(ENUM(sample__size, SAMPLE__SIZE__BIG_ONE), "big-one");
    assert_string_equal(ENUM(sample__alone, SAMPLE__ALONE__ALONE_ONE), "alone-one");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_set),
        cmocka_unit_test(test_nothing_set),
        cmocka_unit_test(test_one_of),
        cmocka_unit_test(test_own_messages),
        cmocka_unit_test(test_enums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
