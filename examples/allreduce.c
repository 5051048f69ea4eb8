/* All ranks sum vectors with MPI_Allreduce; every rank checks the result, rank 0 tells the time.
 *
 * Exits with 1 on every rank if any rank saw a wrong sum.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

enum { COUNT = 1024, ROUNDS = 10 };

/* Ranks contribute rank + i to element i. */
static int is_right(const long *sums, int size)
{
    const long ranks = (long)size * (size - 1) / 2;

    for (int i = 0; i < COUNT; i++)
        if (sums[i] != ranks + (long)size * i)
            return 0;
    return 1;
}

int main(int argc, char **argv)
{
    static long mine[COUNT];
    static long sums[COUNT];
    int rank = 0;
    int size = 0;
    int right = 1;
    int all_right = 0;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (int i = 0; i < COUNT; i++)
        mine[i] = rank + i;

    MPI_Barrier(MPI_COMM_WORLD);
    const double start = MPI_Wtime();
    for (int round = 0; round < ROUNDS; round++)
        MPI_Allreduce(mine, sums, COUNT, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    const double each = (MPI_Wtime() - start) / ROUNDS;

    right = is_right(sums, size);
    if (!right)
        fprintf(stderr, "allreduce: wrong sum on rank %d\n", rank);
    MPI_Allreduce(&right, &all_right, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    if (rank == 0 && all_right)
        printf("allreduce: %d longs over %d ranks, sum[0] = %ld, %.1f us each\n", COUNT, size,
               sums[0], each * 1e6);
    MPI_Finalize();
    return all_right ? EXIT_SUCCESS : EXIT_FAILURE;
}
