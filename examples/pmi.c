/* Each process tells its right neighbour its rank, through libpmi.so or, with an argument, through libpmi2.so.
 *
 *   cc -o pmi examples/pmi.c -L DIR -lpmi -lpmi2
 *   flux run -N4 -n8 ./pmi
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int PMI_Init (int *spawned);
int PMI_Initialized (int *initialized);
int PMI_Finalize (void);
int PMI_Get_size (int *size);
int PMI_Get_rank (int *rank);
int PMI_Get_universe_size (int *size);
int PMI_Get_appnum (int *appnum);
int PMI_Get_clique_size (int *size);
int PMI_Get_clique_ranks (int ranks[], int length);
int PMI_KVS_Get_my_name (char name[], int length);
int PMI_KVS_Get_value_length_max (int *length);
int PMI_KVS_Put (const char name[], const char key[], const char value[]);
int PMI_KVS_Commit (const char name[]);
int PMI_KVS_Get (const char name[], const char key[], char value[], int length);
int PMI_Barrier (void);
int PMI_Publish_name (const char service[], const char port[]);

int PMI2_Init (int *spawned, int *size, int *rank, int *appnum);
int PMI2_Finalize (void);
int PMI2_Job_GetId (char *id, int length);
int PMI2_KVS_Put (const char *key, const char *value);
int PMI2_KVS_Get (const char *job, int source, const char *key, char *value, int room, int *length);
int PMI2_KVS_Fence (void);
int PMI2_Info_GetSize (int *size);
int PMI2_Info_PutNodeAttr (const char *name, const char *value);
int PMI2_Info_GetNodeAttr (const char *name, char *value, int room, int *found, int wait);
int PMI2_Info_GetJobAttr (const char *name, char *value, int room, int *found);

static void check (int ok, const char *what)
{
    if (!ok) {
        fprintf (stderr, "pmi: %s failed\n", what);
        exit (1);
    }
}

static void first (void)
{
    int spawned, initialized, rank, size, universe, appnum, local, max, *ranks;
    char name[64], key[64], value[1024];

    check (PMI_Get_rank (&rank) != 0, "refusal before PMI_Init");
    check (PMI_Init (&spawned) == 0 && spawned == 0, "PMI_Init");
    check (PMI_Initialized (&initialized) == 0 && initialized == 1, "PMI_Initialized");
    check (PMI_Get_rank (&rank) == 0 && PMI_Get_size (&size) == 0, "rank and size");
    check (PMI_Get_universe_size (&universe) == 0 && universe == size, "universe size");
    check (PMI_Get_appnum (&appnum) == 0 && appnum == 0, "appnum");
    check (PMI_KVS_Get_my_name (name, sizeof (name)) == 0, "name");
    check (PMI_KVS_Get_my_name (name, 1) != 0, "refusal of too little room");
    check (PMI_KVS_Get_my_name (name, sizeof (name)) == 0 && *name, "name");
    check (PMI_KVS_Get_value_length_max (&max) == 0 && max <= (int)sizeof (value), "length of values");
    snprintf (key, sizeof (key), "rank.%d", rank);
    snprintf (value, sizeof (value), "I am %d of %d", rank, size);
    check (PMI_KVS_Put (name, key, value) == 0 && PMI_KVS_Commit (name) == 0, "put");
    check (PMI_Barrier () == 0, "barrier");
    check (PMI_KVS_Get (name, "nobody", value, sizeof (value)) != 0, "refusal of a key that is not there");
    snprintf (key, sizeof (key), "rank.%d", (rank + size - 1) % size);
    check (PMI_KVS_Get (name, key, value, sizeof (value)) == 0, "get");
    check (PMI_Get_clique_size (&local) == 0, "clique size");
    ranks = calloc (local, sizeof (*ranks));
    check (ranks && PMI_Get_clique_ranks (ranks, local) == 0, "clique ranks");
    check (PMI_Publish_name ("a", "b") != 0, "refusal to publish");
    printf ("%d: %s, node of %d from %d\n", rank, value, local, ranks[0]);
    free (ranks);
    check (PMI_Finalize () == 0, "PMI_Finalize");
}

static void second (void)
{
    int spawned, rank, size, appnum, local, length, found;
    char id[64], key[64], value[1024], small[5], map[1024], leader[64];

    check (PMI2_Init (&spawned, &size, &rank, &appnum) == 0 && spawned == 0 && appnum == 0, "PMI2_Init");
    check (PMI2_Job_GetId (id, sizeof (id)) == 0 && *id, "id");
    snprintf (key, sizeof (key), "rank.%d", rank);
    snprintf (value, sizeof (value), "I am %d of %d", rank, size);
    check (PMI2_KVS_Put (key, value) == 0, "put");
    check (PMI2_KVS_Fence () == 0, "fence");
    snprintf (key, sizeof (key), "rank.%d", (rank + size - 1) % size);
    check (PMI2_KVS_Get (id, -1, key, small, sizeof (small), &length) == 0, "get of a part");
    check (length < 0 && strcmp (small, "I am") == 0, "part of a value");
    check (PMI2_KVS_Get (id, -1, key, value, sizeof (value), &length) == 0, "get");
    check (length == (int)strlen (value), "length of a value");
    check (PMI2_Info_GetSize (&local) == 0, "size of the node");
    check (PMI2_Info_GetJobAttr ("PMI_process_mapping", map, sizeof (map), &found) == 0 && found, "map");
    check (PMI2_Info_GetJobAttr ("nothing", map, sizeof (map), &found) == 0 && !found, "nothing");
    if (rank % local == 0) {
        snprintf (leader, sizeof (leader), "%d", rank);
        check (PMI2_Info_PutNodeAttr ("leader", leader) == 0, "put on the node");
    }
    check (PMI2_Info_GetNodeAttr ("leader", leader, sizeof (leader), &found, 1) == 0 && found, "get on the node");
    printf ("%d: %s, node of %d from %s\n", rank, value, local, leader);
    check (PMI2_Finalize () == 0, "PMI2_Finalize");
}

int main (int argc, char **argv)
{
    (void)argv;
    if (argc > 1)
        second ();
    else
        first ();
    return 0;
}
