// A compiled partition: a flat list of steps over numbered slots, and the frame of one run of it.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "arena.h"
#include "control.h"
#include "engine_context.h"

typedef struct _object PyObject;

namespace epk {

constexpr int AT_PYTHON = -1;    // Frame::run: the next step is Python's
constexpr size_t SMALL = 1024;   // bytes; smaller results are copied out rather than handed over

// One kernel call. Without a kernel, or where the kernel says EPK_UNSUPPORTED, it is Python's: `callable` is called
// with the inputs as arrays. Or a step of control flow (control.h).
struct Step {
  epk_kernel kernel = nullptr;
  Control control = Control::none;
  int target = 0;          // of control: the step to go on with
  int loop = ABSENT;       // of control: of Program::loops
  int region = 0;          // steps of one region run one after the other, all of them or none
  PyObject *callable = nullptr;
  std::vector<max_align_t> attributes;
  std::vector<int> inputs, outputs;
  std::vector<int> frees;  // slots that nobody needs afterwards
  std::vector<int> over;   // pairs (output, input): the output may take the input's memory if nobody else needs it
  int join = ABSENT;       // of Program::joins: the step is that Concat
};

// A Concat: where its inputs follow each other in the result, they are written there in the first place.
struct Join {
  int output, axis;
  std::vector<int> inputs;
};

// What is known of a slot before any run.
struct SlotType {
  DLDataType dtype{0, 0, 1};    // bits 0: unknown, only Python steps touch it
  PyObject *descr = nullptr;    // the NumPy dtype
  bool escapes = false;         // Python sees it: large values get memory that can be handed over
  int join = ABSENT, part = 0;  // the Concat that it may be written into, and its place among the inputs there
};

struct Input {
  int slot;
  int ndim;                     // -1: any
  std::vector<int64_t> shape;   // -1: any
  PyObject *name;
};

struct Constant {
  int slot;
  DLTensor tensor;
  std::vector<int64_t> shape;
  PyObject *array;              // keeps the memory
};

struct Program {
  std::vector<Step> steps;
  std::vector<SlotType> slots;
  std::vector<Input> inputs;
  std::vector<Constant> constants;
  std::vector<Join> joins;
  std::vector<Loop> loops;
  std::vector<int> outputs;
  std::vector<PyObject *> output_names;
  int max_arity = 1;
  int threads = 1;
  Account account;  // of all frames' arenas
};

// Whose memory a value lies in.
enum class Owner : uint8_t { none, borrowed, arena, heap, object };

struct Buffer {
  void *memory = nullptr;
  PyObject *object = nullptr;   // Owner::object: what keeps the memory
  int refs = 0;
  Owner owner = Owner::none;
};

struct Slot {
  DLTensor tensor;
  int buffer = ABSENT;          // the slot whose Buffer holds the memory
  PyObject *array = nullptr;    // the value as Python sees it; null until asked for
  int64_t shape[EPK_MAX_RANK];
};

// What a frame knows of a Concat: the bytes of its inputs in the latest run, and its memory once an input lies there.
struct Joining {
  std::vector<size_t> sizes;
  bool known = false;           // the inputs followed each other in the result
  char *memory = nullptr;
  int buffer = ABSENT;
};

// One run at a time. Kept between runs, with its memory.
class Frame {
 public:
  explicit Frame(const Program &program);
  ~Frame();

  // Runs steps from `step` on, or one only, to the end or to a step of Python's (AT_PYTHON); else a status, and
  // `message` says why. A loop that goes on for long comes back, so that the caller can look up.
  int run(size_t &step, bool one);
  // The value of a slot is memory that outlives the run.
  void borrow(int slot, void *data, int ndim, const int64_t *shape, PyObject *array);
  void drop(int slot);
  void drop_after(const Step &step);
  // Gives everything back but the constants.
  void clear();

  epk_context *context() { return &context_.own.base; }
  // Bytes of values that needed no memory of their own in the latest run: parts of others, or in their place.
  int64_t spared() const { return spared_; }
  // Nanoseconds of work that the steps of the last run had to share.
  int64_t shared_work() const { return shared_work_; }
  void begin_run() { shared_work_ = 0; }
  // Python ran a Concat: what was written into a result in advance is not used.
  void abandon_join(const Step &step) { if (step.join != ABSENT) release(joinings_[step.join]); }

  const Program &program;
  std::vector<Slot> slots;
  std::vector<Buffer> buffers;  // of the slots, of the joins, and spare ones
  std::vector<PyObject *> garbage;  // references to give up when Python's lock is held
  Arena arena;
  char message[512];

 private:
  struct Context {
    EngineContext own;  // first: kernels get its address
    Frame *frame;
  };

  static Frame *of(epk_context *ctx) { return reinterpret_cast<Context *>(ctx)->frame; }
  static void *output(epk_context *ctx, int index, int32_t ndim, const int64_t *shape);
  static int alias(epk_context *ctx, int index, int input, int32_t ndim, const int64_t *shape);
  static int view(epk_context *ctx, int index, int input, int32_t ndim, const int64_t *shape, int64_t offset);
  static void *scratch(epk_context *ctx, size_t nbytes);
  static void parallel(epk_context *ctx, int64_t count, int64_t grain, epk_body body, void *arg);
  static int fail(epk_context *ctx, int status, const char *text);

  int call(const Step &step);
  bool set_shape(DLTensor &tensor, int32_t ndim, const int64_t *shape, size_t *nbytes);
  void *unnamed_output(size_t nbytes);

  // Control flow.
  int steer(const Step &step, size_t &index);
  int hold(const int *sources, size_t count);
  void settle_held(const Step &step);
  int truth(const Step &step, size_t input, bool &value);
  int begin(const Step &step);
  int trip(const Step &step, Looping &state);
  int slice(const Step &step, size_t input, const Sliced &how, int64_t place);
  int next(const Step &step, Looping &state);
  int collect(const Step &step, size_t input, Looping &state, size_t which);
  int finish(const Step &step, Looping &state);
  char *fresh(int slot, int ndim, const int64_t *shape);
  int refuse(int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
  void release(Collecting &collecting);

  // Memory of its own for a value that becomes slot `number`, in a Buffer without references; ABSENT: there is none.
  int vacant(int own);
  int allocate(int number, size_t nbytes, int own);
  // Memory for a slot, in a Buffer (`own` if it is free) or as a part of another's; null: there is none. The caller
  // counts the reference.
  char *memory_for(int slot, size_t nbytes, int own, int &buffer);
  char *part_of(int join, int part, size_t nbytes, int &buffer);
  char *taken_over(int index, size_t nbytes, int &buffer);
  char *joined(size_t nbytes, int &buffer);
  void learn(const Step &step);
  void release(Joining &joining);
  void unref(int buffer);
  // What a step had to share the last time, in each of its first calls of `parallel`.
  struct Shared {
    int64_t count = -1, grain = 0, work = 0;
  };
  static constexpr int SHARED = 3;

  Context context_;
  const Step *current_ = nullptr;
  int shares_ = 0;  // calls of `parallel` in the current step
  int64_t shared_work_ = 0;
  std::vector<Shared> shared_;  // SHARED for each step
  int refused_ = EPK_FAILED;  // the status of what `output` or `scratch` refused
  std::vector<DLTensor> in_, out_;
  std::vector<int64_t> spare_shapes_;  // of outputs that have no slot
  std::vector<void *> scratch_;
  std::vector<Joining> joinings_;
  std::vector<Looping> loopings_;
  std::vector<Held> held_;
  int64_t since_ = 0;       // when the native stretch began in which loops run
  int rests_ = 0;           // the loop comes back to its caller for a moment
  std::vector<int> spare_;  // Buffers without references, besides those of slots and joins
  int64_t spared_ = 0, sparing_ = 0;  // of the latest run, of this one
};

}  // namespace epk
