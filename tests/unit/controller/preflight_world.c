#include "tests/unit/controller/preflight_world.h"

#include "base/buf.h"
#include "controller/pb.h"

void world_word_add(char ***list, size_t *count, const char *text)
{
    *list = mem_realloc(*list, (*count + 1) * sizeof **list);
    (*list)[(*count)++] = mem_strdup(text);
}

static void model_add(Drover__HostFacts *f, const char *name, const char *missing)
{
    Drover__CpuModel *model = pb_new(&drover__cpu_model__descriptor);
    pb_string(&model->name, name);
    if (missing)
        world_word_add(&model->missing, &model->n_missing, missing);
    PB_ADD(f, cpu_models, model);
}

void world_feature_add(Drover__HostFacts *f, const char *name)
{
    world_word_add(&f->cpu_features, &f->n_cpu_features, name);
}

static Drover__HostFacts *facts(void)
{
    Drover__HostFacts *f = pb_new(&drover__host_facts__descriptor);
    pb_string(&f->accelerator, "kvm");
    pb_string(&f->tracker, "wp-async");
    pb_string(&f->hypervisor, "QEMU 10.0.2");
    pb_string(&f->clock_source, "tsc");
    world_word_add(&f->machine_types, &f->n_machine_types, "pc-q35-10.0");
    world_word_add(&f->machine_types, &f->n_machine_types, "pc-q35-7.2");
    model_add(f, "Haswell-v1", NULL);
    world_feature_add(f, "aes");
    world_feature_add(f, "avx");
    f->page_bytes = 4096;
    f->tsc_khz = 2000000;
    f->cpus = 8;
    f->max_vcpus = 288;
    return f;
}

static Drover__CheckedFile *file(const char *path, const char *format)
{
    Drover__CheckedFile *f = pb_new(&drover__checked_file__descriptor);
    pb_string(&f->path, path);
    pb_string(&f->format, format);
    f->inode = 12;
    f->locked = true;
    return f;
}

static Drover__MigrateCheckReply *sees(void)
{
    Drover__MigrateCheckReply *c = pb_new(&drover__migrate_check_reply__descriptor);
    PB_ADD(c, disks, file("/srv/a.qcow2", "qcow2"));
    PB_ADD(c, boot_files, file("/srv/vmlinux", "raw"));
    PB_ADD(c, switches, pb_new(&drover__checked_switch__descriptor));
    pb_string(&c->switches[0]->bridge, "drover0");
    c->switches[0]->mtu = 1500;
    c->memory_free_bytes = 4 * GIB;
    c->ram_free_bytes = 6 * GIB;
    return c;
}

struct world world(void)
{
    struct world w = {pb_new(&drover__vm_spec__descriptor), facts(), facts(), sees(), sees(), {0}};
    pb_string(&w.spec->machine_type, "pc-q35-7.2");
    pb_string(&w.spec->cpu_model, "Haswell-v1");
    pb_string(&w.spec->kernel, "/srv/vmlinux");
    w.spec->vcpus = 2;
    w.spec->memory_bytes = GIB;
    PB_ADD(w.spec, disks, pb_new(&drover__disk__descriptor));
    pb_string(&w.spec->disks[0]->path, "/srv/a.qcow2");
    pb_string(&w.spec->disks[0]->format, "qcow2");
    PB_ADD(w.spec, nics, pb_new(&drover__nic__descriptor));
    w.in = (struct preflight_input){
        "web", w.spec, {"h1", w.from, w.from_sees, false}, {"h2", w.to, w.to_sees, false}, true, 2 * GIB};
    return w;
}

void world_free(struct world *w)
{
    pb_free(w->spec);
    pb_free(w->from);
    pb_free(w->to);
    pb_free(w->from_sees);
    pb_free(w->to_sees);
}
