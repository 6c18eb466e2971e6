// A fused chain over the broadcast shape of its inputs, tile by tile: one pass over memory, whatever the chain.
#include "pointwise.h"

namespace EPK_NS {
namespace {

constexpr int MOST_REGISTERS = 96;

// How an input is spread over the result: dense dimensions and repeated ones, neighbours of a kind merged.
struct Spread {
  int rank;
  int64_t dims[MAX_RANK], strides[MAX_RANK];  // in elements; 0: repeated
  bool scalar, dense;

  Spread(const DLTensor &t, const int64_t *shape, int rank_out) {
    rank = 0;
    int64_t stride = 1, size = 1;
    for (int i = rank_out - 1, j = t.ndim - 1; i >= 0; i--, j--) {
      int64_t dim = shape[i], own = j >= 0 ? t.shape[j] : 1;
      size *= own;
      if (dim == 1) continue;
      int64_t s = own == 1 ? 0 : stride;
      if (rank > 0 && (s == 0 ? strides[rank - 1] == 0 : strides[rank - 1] != 0)) {
        dims[rank - 1] *= dim;  // dense on dense, or repeated on repeated
      } else {
        dims[rank] = dim;
        strides[rank++] = s;
      }
      stride *= own;
    }
    scalar = size == 1;
    dense = rank == 0 || (rank == 1 && strides[0] == 1);
  }

  // Elements [begin, begin + n) of the result, from `from` to `to`. Dimension 0 is the innermost.
  template <class T> void expand(const T *from, T *to, int64_t begin, int64_t n) const {
    int64_t at[MAX_RANK], offset = 0, rest = begin;
    for (int i = 0; i < rank; i++) {
      at[i] = rest % dims[i];
      rest /= dims[i];
      offset += at[i] * strides[i];
    }
    while (n > 0) {
      int64_t run = min_of(n, dims[0] - at[0]);
      if (strides[0] == 0) {
        const T value = from[offset];
        for (int64_t i = 0; i < run; i++) to[i] = value;
      } else {
        memcpy(to, from + offset, size_t(run) * sizeof(T));
      }
      to += run;
      n -= run;
      at[0] += run;
      offset += run * strides[0];
      for (int i = 0; i + 1 < rank && at[i] == dims[i]; i++) {
        offset -= at[i] * strides[i];
        at[i] = 0;
        at[i + 1]++;
        offset += strides[i + 1];
      }
    }
  }

  // If the elements lie one after the other in the input, where; else null.
  const char *in_place(const char *from, int64_t begin, int64_t n, int64_t width) const {
    if (dense) return from + begin * width;
    if (strides[0] == 0 || rank != 2) return nullptr;
    int64_t at = begin % dims[0];  // a row that is repeated
    return at + n <= dims[0] ? from + at * width : nullptr;
  }
};

void expand(const Spread &spread, int64_t width, const char *from, char *to, int64_t begin, int64_t n) {
  switch (width) {
    case 1: return spread.expand((const uint8_t *)from, (uint8_t *)to, begin, n);
    case 2: return spread.expand((const uint16_t *)from, (uint16_t *)to, begin, n);
    case 4: return spread.expand((const uint32_t *)from, (uint32_t *)to, begin, n);
    default: return spread.expand((const uint64_t *)from, (uint64_t *)to, begin, n);
  }
}

int64_t literal_bytes(const Literal &literal, char *bytes) {
  switch (literal.type) {
#define EPK_LITERAL(type, T, member) \
  case TILE_##type: { T v = T(literal.member); memcpy(bytes, &v, sizeof v); return sizeof v; }
    EPK_LITERAL(float32, float, number) EPK_LITERAL(float64, double, number) EPK_LITERAL(int8, int8_t, whole)
    EPK_LITERAL(int16, int16_t, whole) EPK_LITERAL(int32, int32_t, whole) EPK_LITERAL(int64, int64_t, whole)
    EPK_LITERAL(uint8, uint8_t, whole) EPK_LITERAL(uint16, uint16_t, whole) EPK_LITERAL(uint32, uint32_t, whole)
    EPK_LITERAL(uint64, uint64_t, whole) EPK_LITERAL(bool, uint8_t, whole)
#undef EPK_LITERAL
  }
  return 0;
}

void fill(char *to, const char *bytes, int64_t width, int64_t n) {
  for (int64_t i = 0; i < n; i++) memcpy(to + i * width, bytes, size_t(width));
}

struct Job {
  const Chain *chain;
  const DLTensor *in;
  DLTensor *out;
  const Spread *spreads;
  const TileFunction *functions;
  char *memory;           // registers of all threads
  int64_t register_bytes, thread_bytes;
  int64_t size;
  volatile int failed;

  char *own_register(int thread, int index) const { return memory + thread * thread_bytes + index * register_bytes; }
};

// Registers that hold the same value in every tile are filled once per piece.
void prepare(Job &job, int thread, char **registers, int64_t n) {
  const Chain &chain = *job.chain;
  for (int i = 0; i < chain.n_in + chain.n_literals + chain.n_temporaries; i++) {
    registers[i] = job.own_register(thread, i);
  }
  for (int i = 0; i < chain.n_in; i++) {
    if (job.spreads[i].scalar) fill(registers[i], (const char *)job.in[i].data, width_of(job.in[i]), n);
  }
  for (int i = 0; i < chain.n_literals; i++) {
    char bytes[8];
    int64_t width = literal_bytes(chain.literals()[i], bytes);
    fill(registers[chain.n_in + i], bytes, width, n);
  }
}

void run_tile(Job &job, char **registers, int thread, int64_t begin, int64_t n) {
  const Chain &chain = *job.chain;
  for (int i = 0; i < chain.n_in; i++) {
    const Spread &spread = job.spreads[i];
    if (spread.scalar) continue;
    int64_t width = width_of(job.in[i]);
    const char *data = (const char *)job.in[i].data;
    if (const char *there = spread.in_place(data, begin, n, width)) {
      registers[i] = const_cast<char *>(there);
    } else {
      registers[i] = job.own_register(thread, i);
      expand(spread, width, data, registers[i], begin, n);
    }
  }
  const int first_temporary = chain.n_in + chain.n_literals;
  for (int i = 0; i < chain.n_out; i++) {  // results are written where they belong
    int r = chain.results()[i];
    if (r >= first_temporary) registers[r] = (char *)job.out[i].data + begin * width_of(job.out[i]);
  }
  const Instruction *step = chain.instructions();
  for (int i = 0; i < chain.n_instructions; i++, step++) {
    const void *b = step->b >= 0 ? registers[step->b] : nullptr, *c = step->c >= 0 ? registers[step->c] : nullptr;
    if (job.functions[i](*step, registers[step->to], registers[step->a], b, c, n)) job.failed = 1;
  }
  for (int i = 0; i < chain.n_out; i++) {
    int r = chain.results()[i];
    int64_t width = width_of(job.out[i]);
    if (r < first_temporary) memcpy((char *)job.out[i].data + begin * width, registers[r], size_t(n * width));
  }
}

}  // namespace

// Inputs of any types that broadcast together; every output has the broadcast shape. See Chain for the attributes.
EPK_OPERATOR(pointwise) {
  const Chain &chain = *static_cast<const Chain *>(attributes);
  const int n_registers = chain.n_in + chain.n_literals + chain.n_temporaries;
  if (n_registers > MOST_REGISTERS || chain.n_instructions > MOST_REGISTERS) return EPK_UNSUPPORTED;
  int64_t shape[MAX_RANK];
  int rank = 0;
  for (int i = 0; i < n_in; i++) {
    int64_t merged[MAX_RANK];
    int next = broadcast(shape, rank, in[i].shape, in[i].ndim, merged);
    if (next < 0) {
      DLTensor so_far = in[i];
      so_far.ndim = rank;
      so_far.shape = shape;
      return epk_fail(ctx, EPK_INVALID, "the shapes %s and %s do not broadcast", ShapeText(so_far).text,
                       ShapeText(in[i]).text);
    }
    memcpy(shape, merged, sizeof(int64_t) * size_t(next));
    rank = next;
  }
  for (int i = 0; i < n_out; i++) {
    if (!ctx->output(ctx, i, rank, shape)) return EPK_FAILED;
  }
  Job job;
  job.size = product(shape, rank);
  if (job.size == 0) return EPK_OK;
  TileFunction functions[MOST_REGISTERS];
  for (int i = 0; i < chain.n_instructions; i++) {
    functions[i] = tile_function(chain.instructions()[i].op, chain.instructions()[i].type);
    if (!functions[i]) return epk_fail(ctx, EPK_UNSUPPORTED, "an operation without a meaning for its type");
  }
  alignas(Spread) char room[MOST_REGISTERS * sizeof(Spread)];
  Spread *spreads = reinterpret_cast<Spread *>(room);
  for (int i = 0; i < n_in; i++) spreads[i] = Spread(in[i], shape, rank);

  const int64_t tile = min_of<int64_t>(chain.tile, round_up(job.size, 16));
  job.chain = &chain;
  job.in = in;
  job.out = out;
  job.spreads = spreads;
  job.functions = functions;
  job.failed = 0;
  job.register_bytes = tile * 8;
  job.thread_bytes = job.register_bytes * n_registers;
  int64_t grain = max_of<int64_t>(round_up(grain_of(ctx, job.size, 65536 / max_of(chain.cost, 1)), tile), tile);
  int threads = job.size > grain ? ctx->threads : 1;
  job.memory = static_cast<char *>(ctx->scratch(ctx, size_t(job.thread_bytes * threads)));
  if (!job.memory) return EPK_FAILED;
  in_parallel(ctx, job.size, grain, [&](int64_t begin, int64_t end, int thread) {
    char *registers[MOST_REGISTERS];
    prepare(job, thread, registers, min_of(tile, end - begin));
    for (int64_t at = begin; at < end; at += tile) run_tile(job, registers, thread, at, min_of(tile, end - at));
  });
  return job.failed ? epk_fail(ctx, EPK_INVALID, "integer division by zero") : EPK_OK;
}

}  // namespace EPK_NS
