/* What hosts have in common, and who keeps it from being more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "controller/pb.h"
#include "controller/placement/baseline.h"

static void words(char ***list, size_t *count, const char *text)
{
    char *copy = mem_strdup(text), *save = NULL;
    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        *list = mem_realloc(*list, (*count + 1) * sizeof **list);
        (*list)[(*count)++] = mem_strdup(word);
    }
    free(copy);
}

/* `models`: "Haswell-v1:hle,rtm Nehalem-v1:". */
static Drover__HostFacts *host(const char *accelerator, const char *machines, const char *models, const char *features)
{
    Drover__HostFacts *f = pb_new(&drover__host_facts__descriptor);
    char *copy = mem_strdup(models), *save = NULL;
    pb_string(&f->accelerator, accelerator);
    words(&f->machine_types, &f->n_machine_types, machines);
    words(&f->cpu_features, &f->n_cpu_features, features);
    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        Drover__CpuModel *model = pb_new(&drover__cpu_model__descriptor);
        char *missing = strchr(word, ':');
        *missing++ = '\0';
        for (char *comma = missing; (comma = strchr(comma, ',')) != NULL;)
            *comma = ' ';
        pb_string(&model->name, word);
        words(&model->missing, &model->n_missing, missing);
        PB_ADD(f, cpu_models, model);
    }
    free(copy);
    return f;
}

struct pair {
    struct baseline_host hosts[2];
};

static struct pair pair(Drover__HostFacts *a, Drover__HostFacts *b)
{
    return (struct pair){{{"h1", a}, {"h2", b}}};
}

static void pair_free(struct pair *p)
{
    pb_free((void *)(uintptr_t)p->hosts[0].facts);
    pb_free((void *)(uintptr_t)p->hosts[1].facts);
}

static void machines(void **unused)
{
    (void)unused;
    assert_true(baseline_machine_later("pc-q35-10.0", "pc-q35-9.2"));
    assert_false(baseline_machine_later("pc-q35-9.2", "pc-q35-10.0"));
    assert_false(baseline_machine_later("q35", "pc-q35-2.4"));
    assert_true(baseline_machine_later("pc-q35-2.4", "q35"));

    struct pair p = pair(host("tcg", "pc-q35-10.0 pc-q35-9.2 pc-q35-7.2 pc-q35-7.1", "", ""),
        host("tcg", "pc-q35-7.1 pc-q35-7.2 pc-q35-7.0", "", ""));
    assert_string_equal(baseline_machine(p.hosts, 2), "pc-q35-7.2");
    assert_string_equal(baseline_machine(p.hosts, 1), "pc-q35-10.0");
    assert_null(baseline_machine(p.hosts, 0));
    pair_free(&p);
    p = pair(host("tcg", "pc-q35-10.0", "", ""), host("tcg", "pc-q35-7.2", "", ""));
    assert_null(baseline_machine(p.hosts, 2));
    pair_free(&p);
}

static void processors(void **unused)
{
    (void)unused;
    static const struct {
        const char *models[2], *features[2], *expected; /* NULL: nothing in common */
    } cases[] = {
        /* The newest that both have whole. */
        {{"Nehalem-v1: Haswell-v1:", "Nehalem-v1: Haswell-v1:"}, {"", ""}, "Haswell-v1"},
        /* One host is older. */
        {{"Nehalem-v1: Haswell-v1:",
             "Nehalem-v1: Haswell-v1:avx2,bmi2,fma,movbe,hle,rtm,erms,smep,f16c,rdrand,avx,xsave"
             ",abm,bmi1"},
            {"", ""}, "Nehalem-v1"},
        /* A few features less are better than a generation less; both hosts' gaps count, each once. */
        {{"Nehalem-v1: Skylake-Server-v1:hle,rtm", "Nehalem-v1: Skylake-Server-v1:rtm,mpx"}, {"", ""},
            "Skylake-Server-v1,-hle,-rtm,-mpx"},
        /* Of a family the version that lacks least, of equals the later one. */
        {{"Haswell-v1:hle Haswell-v2: Haswell-v4:", "Haswell-v1: Haswell-v2: Haswell-v4:"}, {"", ""}, "Haswell-v4"},
        /* What guests should have is added only when both hosts have it. */
        {{"EPYC-v1:", "EPYC-v1:"}, {"ibpb pcid aes", "aes ibpb"}, "EPYC-v1,+ibpb"},
        /* A model only one of them knows, and one without a rank. */
        {{"GraniteRapids-v1: Penryn-v1:", "Penryn-v1: qemu64-v1:"}, {"", ""}, "Penryn-v1"},
        {{"qemu64-v1:", "qemu64-v1:"}, {"", ""}, NULL},
        {{"", "Haswell-v1:"}, {"", ""}, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char model[BASELINE_CPU_MAX] = "none";
        struct pair p = pair(host("kvm", "", cases[i].models[0], cases[i].features[0]),
            host("kvm", "", cases[i].models[1], cases[i].features[1]));
        bool found = baseline_cpu(p.hosts, 2, "kvm", model);
        assert_int_equal(found, cases[i].expected != NULL);
        assert_string_equal(model, cases[i].expected ? cases[i].expected : "none");
        assert_false(baseline_cpu(p.hosts, 2, "tcg", model));
        pair_free(&p);
    }
}

static void a_report(void **unused)
{
    (void)unused;
    struct pair p = pair(host("kvm", "pc-q35-9.2", "Nehalem-v1: Haswell-v1: Broadwell-v1:smap,adx", ""),
        host("kvm", "pc-q35-9.2", "Nehalem-v1: Haswell-v1: Broadwell-v1:", ""));
    Drover__ClusterCpuReply *reply = baseline_report(p.hosts, 2);
    assert_string_equal(reply->machine_type, "pc-q35-9.2");
    assert_int_equal(reply->n_baselines, 1);
    const Drover__CpuBaseline *b = reply->baselines[0];
    assert_int_equal(b->n_hosts, 2);
    assert_string_equal(b->model, "Broadwell-v1,-smap,-adx");
    assert_string_equal(b->default_model, b->model);
    assert_int_equal(b->n_limits, 0);
    pb_free(reply);
    pair_free(&p);

    p = pair(host("kvm", "", "Nehalem-v1: Haswell-v1:a,b,c,d,e,f,g,h,i,j,k,l,m,n,o", ""),
        host("tcg", "", "Nehalem-v1: Haswell-v1:", ""));
    reply = baseline_report(p.hosts, 2);
    assert_int_equal(reply->n_baselines, 2);
    assert_string_equal(reply->baselines[0]->model, "Nehalem-v1");
    assert_int_equal(reply->baselines[0]->n_limits, 1);
    assert_string_equal(reply->baselines[0]->limits[0]->model, "Haswell-v1");
    assert_string_equal(reply->baselines[0]->limits[0]->host, "h1");
    assert_int_equal(reply->baselines[0]->limits[0]->n_missing, 15);
    assert_string_equal(reply->baselines[1]->model, "Haswell-v1");
    assert_string_equal(reply->baselines[1]->default_model, "max");
    pb_free(reply);
    pair_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(machines),
        cmocka_unit_test(processors),
        cmocka_unit_test(a_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
