/* A token goes once around all ranks. Each adds itself to a sum and signs with the name of its
 * host; when the token is back, rank 0 prints the way it took.
 *
 * Exits with 1 if the token is not what the ranks should have made of it.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

/* One leg of the token's way. */
struct hop {
    int rank;
    char host[MPI_MAX_PROCESSOR_NAME];
};

struct token {
    int hops;
    int sum;
    struct hop way[];
};

static void sign(struct token *token, int rank)
{
    struct hop *hop = &token->way[token->hops];
    int length = 0;

    hop->rank = rank;
    MPI_Get_processor_name(hop->host, &length);
    token->hops += 1;
    token->sum += rank;
}

/* Prints the way; returns whether every rank was visited once, in order. */
static int report(const struct token *token, int size)
{
    int right = token->hops == size && token->sum == size * (size - 1) / 2;

    for (int i = 0; i < token->hops; i++) {
        const struct hop *hop = &token->way[i];

        printf("hop %d: rank %d of %d on %s\n", i, hop->rank, size, hop->host);
        right = right && hop->rank == i;
    }
    printf("ring: %d hops, sum of ranks %d\n", token->hops, token->sum);
    return right;
}

int main(int argc, char **argv)
{
    int rank = 0;
    int size = 0;
    int right = 1;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);

    const int next = (rank + 1) % size;
    const int previous = (rank + size - 1) % size;
    const int bytes = (int)(sizeof(struct token) + (size_t)size * sizeof(struct hop));
    struct token *token = calloc(1, (size_t)bytes);

    if (!token) {
        fprintf(stderr, "ring: rank %d is out of memory\n", rank);
        MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
        return EXIT_FAILURE;
    }
    if (rank > 0)
        MPI_Recv(token, bytes, MPI_BYTE, previous, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    sign(token, rank);
    if (size > 1)
        MPI_Send(token, bytes, MPI_BYTE, next, 0, MPI_COMM_WORLD);
    if (rank == 0) {
        if (size > 1)
            MPI_Recv(token, bytes, MPI_BYTE, previous, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        right = report(token, size);
        if (!right)
            fprintf(stderr, "ring: wrong token\n");
    }
    MPI_Bcast(&right, 1, MPI_INT, 0, MPI_COMM_WORLD);
    free(token);
    MPI_Finalize();
    return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
