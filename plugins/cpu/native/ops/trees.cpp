// Tree ensembles: the votes of the forest, then the rules of regressors and classifiers (see lower/trees.py).
#include "../kernels/trees.h"

#include "ops.h"

namespace EPK_NS {
namespace {

enum { NONE, SOFTMAX, LOGISTIC };  // post transforms

// `columns` of the forest: targets or classes; twice as many where the second half counts the votes for each class.
struct TreesAttributes {
  int64_t columns, features, reduction, average, classes, transform;
  int64_t one_class, positive;  // all votes are for one class; none is negative
};

template <class T> const T *data_of(const DLTensor &t) { return absent(t) ? nullptr : static_cast<const T *>(t.data); }

inline float exp_of(float x) { return __builtin_expf(x); }
inline double exp_of(double x) { return __builtin_exp(x); }

template <class T> T logistic(T x) {
  const T tail = exp_of(x < 0 ? x : -x);
  return (x < 0 ? tail : T(1)) / (1 + tail);
}

// The post transform of one row; a single score stays as it is, as in onnxruntime.
template <class T> void transform(int64_t kind, T *row, int64_t count) {
  if (count == 1 || kind == NONE) return;
  if (kind == LOGISTIC) {
    for (int64_t i = 0; i < count; i++) row[i] = logistic(row[i]);
    return;
  }
  T top = row[0], sum = 0;
  for (int64_t i = 1; i < count; i++) top = max_of(top, row[i]);
  for (int64_t i = 0; i < count; i++) sum += row[i] = exp_of(row[i] - top);
  for (int64_t i = 0; i < count; i++) row[i] /= sum;
}

template <class T> struct Rules {
  const TreesAttributes &how;
  const T *base;       // one for each column, or fewer for two classes
  int64_t bases;
  const uint8_t *sure;  // which classes get a vote in every row; null: the row's second half counts
  int64_t trees;

  bool voted(const T *row, int64_t c) const { return sure ? sure[c] != 0 : row[how.classes + c] > 0; }

  // A target without a vote has the score 0 before the base value is added.
  void regress(T *row) const {
    for (int64_t c = 0; c < how.columns; c++) {
      if (how.average) row[c] /= T(trees > 1 ? trees : 1);
      if (how.reduction != EPK_VOTES_SUM && row[c] - row[c] != 0) row[c] = 0;
      if (bases) row[c] += base[c];
    }
    transform(how.transform, row, how.columns);
  }

  // The first class with the greatest score, among those with a vote or a base value.
  int64_t multiclass(T *row) const {
    int64_t best = 0;
    T most = -T(__builtin_inf());
    for (int64_t c = 0; c < how.classes; c++) {
      if (bases) row[c] += base[c];
      if (row[c] > most && (bases || voted(row, c))) best = c, most = row[c];
    }
    transform(how.transform, row, how.classes);
    return best;
  }

  // The rules of onnxruntime, in words at `_binary` of epkit.kernels.trees.
  int64_t binary(T *row) const {
    const bool has_first = voted(row, 0), has_second = voted(row, 1), probabilities = how.one_class && how.positive;
    T first = row[0], second = row[1];
    if (bases == 1) first += base[0];
    else if (bases == 2 && has_second) second = first + base[1], first = -second;
    else if (bases == 2) first += base[0];
    const T weight = has_second ? second : has_first ? first : T(0);
    if (has_second || bases == 2) {
      row[0] = has_first ? first : T(0), row[1] = has_second ? second : T(0);
      transform(how.transform, row, 2);
    } else if (how.one_class || !bases) {  // of a single score no softmax is taken
      row[0] = probabilities && how.transform != LOGISTIC ? 1 - first : -first, row[1] = first;
      if (how.transform == LOGISTIC) transform(LOGISTIC, row, 2);
    } else {
      row[0] = first, row[1] = 0;
      transform(how.transform, row, 2);
    }
    return weight > (probabilities ? T(0.5) : T(0));
  }

  int64_t single(T *row) const {
    if (bases) row[0] += base[0];
    return row[0] > 0;
  }

  int64_t classify(T *row) const { return how.classes > 2 ? multiclass(row) : how.classes == 2 ? binary(row) : single(row); }
};

inline void votes_of(const EpkTrees<float> &t, const float *x, float *out, int64_t rows, Parallel *p) {
  EPK(trees_f32)(&t, x, out, rows, p);
}
inline void votes_of(const EpkTrees<double> &t, const double *x, double *out, int64_t rows, Parallel *p) {
  EPK(trees_f64)(&t, x, out, rows, p);
}

template <class T, class Out> void copy_rows(const T *from, int64_t stride, Out *to, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) to[r * columns + c] = Out(from[r * stride + c]);
}

template <class T> int trees_of(epk_context *ctx, const TreesAttributes &how, const DLTensor *in, DLTensor *out, int n_out) {
  const DLTensor &x = in[0];
  const int64_t rows = x.ndim == 1 ? 1 : x.shape[0], columns = how.classes ? how.classes : how.columns;
  EpkTrees<T> t{};
  t.features = x.shape[x.ndim - 1], t.columns = how.columns, t.reduction = how.reduction;
  if (t.features < how.features)
    return epk_fail(ctx, EPK_INVALID, "X has %lld features, but a node reads feature %lld", (long long)t.features, (long long)how.features - 1);
  t.nodes = data_of<EpkTreeNode<T>>(in[1]), t.roots = data_of<int32_t>(in[2]), t.trees = epk_size(&in[2]);
  t.table = data_of<T>(in[3]), t.leaf_begin = data_of<int32_t>(in[4]);
  t.entry_column = data_of<int32_t>(in[5]), t.entry_weight = data_of<T>(in[6]);
  const Rules<T> rules{how, data_of<T>(in[7]), absent(in[7]) ? 0 : epk_size(&in[7]), data_of<uint8_t>(in[8]), t.trees};
  const int64_t *labels = data_of<int64_t>(in[9]), shape[] = {rows, columns};
  const int at = how.classes ? 1 : 0;  // the output of the scores
  const bool wanted = n_out > at && out[at].ndim >= 0;
  int64_t *label = nullptr;
  void *y = nullptr;
  if (how.classes && out[0].ndim >= 0 && !(label = static_cast<int64_t *>(ctx->output(ctx, 0, 1, shape)))) return EPK_FAILED;
  if (wanted && !(y = ctx->output(ctx, at, 2, shape))) return EPK_FAILED;
  const int64_t bytes = checked_mul(checked_mul(rows, how.columns), sizeof(T));
  if (bytes < 0) return epk_fail(ctx, EPK_OUT_OF_MEMORY, "the scores of X %s", ShapeText(x).text);
  const bool in_place = wanted && columns == how.columns && is_type(out[at], kDLFloat, 8 * sizeof(T));
  auto *scores = static_cast<T *>(in_place ? y : ctx->scratch(ctx, size_t(bytes)));
  if (!scores) return EPK_FAILED;
  Threads threads(ctx);
  votes_of(t, static_cast<const T *>(x.data), scores, rows, &threads);
  for (int64_t r = 0; r < rows; r++) {
    T *row = scores + r * how.columns;
    if (!how.classes) {
      rules.regress(row);
      continue;
    }
    const int64_t chosen = rules.classify(row);
    if (label) label[r] = how.classes == 1 ? chosen : labels[chosen];
  }
  if (!wanted || in_place) return EPK_OK;
  if (is_f32(out[at])) copy_rows(scores, how.columns, static_cast<float *>(y), rows, columns);
  else copy_rows(scores, how.columns, static_cast<double *>(y), rows, columns);
  return EPK_OK;
}

}  // namespace

// Inputs: X [N, F] or [F], nodes, roots, table, leaf_begin, entry_column, entry_weight, base, sure, labels.
// Outputs: the scores; for classifiers the labels before them.
EPK_OPERATOR(trees) {
  const auto &how = *static_cast<const TreesAttributes *>(attributes);
  if (n_in != 10 || in[0].ndim < 1 || in[0].ndim > 2) return epk_fail(ctx, EPK_INVALID, "X must have the shape [N, F] or [F], not %s", ShapeText(in[0]).text);
  return is_f32(in[0]) ? trees_of<float>(ctx, how, in, out, n_out) : trees_of<double>(ctx, how, in, out, n_out);
}

}  // namespace EPK_NS
