/* A token goes once around all ranks; each adds itself and says where it is, in order.
 *
 * Exits with 1 if the token does not come back with the sum of all ranks.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static void report(int rank, int size, int hop)
{
    char host[MPI_MAX_PROCESSOR_NAME];
    int length = 0;

    MPI_Get_processor_name(host, &length);
    printf("hop %d: rank %d of %d on %s\n", hop, rank, size, host);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int rank = 0;
    int size = 0;
    int wrong = 0;
    /* token[0] counts hops, token[1] sums ranks. */
    int token[2] = {0, 0};

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);

    const int next = (rank + 1) % size;
    const int previous = (rank + size - 1) % size;

    if (rank > 0)
        MPI_Recv(token, 2, MPI_INT, previous, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    report(rank, size, token[0]);
    token[0] += 1;
    token[1] += rank;
    if (size > 1)
        MPI_Send(token, 2, MPI_INT, next, 0, MPI_COMM_WORLD);

    if (rank == 0) {
        const int expected = size * (size - 1) / 2;

        if (size > 1)
            MPI_Recv(token, 2, MPI_INT, previous, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        wrong = token[0] != size || token[1] != expected;
        if (wrong)
            fprintf(stderr, "ring: %d hops and sum %d, expected %d and %d\n", token[0], token[1],
                    size, expected);
        else
            printf("ring: %d hops, sum of ranks %d\n", token[0], token[1]);
    }
    MPI_Bcast(&wrong, 1, MPI_INT, 0, MPI_COMM_WORLD);
    MPI_Finalize();
    return wrong ? EXIT_FAILURE : EXIT_SUCCESS;
}
