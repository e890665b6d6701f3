// The names of the compiled operations; cpu/ and cuda/ implement them.
//
// Loading this library registers them: it needs no Python header and no Python version.

#include <torch/library.h>
#include <torch/version.h>

// Read from the file before it is loaded: a library made for another torch may end the process.
extern "C" __attribute__((used, visibility("default"))) const char rankseg_d2_built_for[] =
    "rankseg_d2 is built for torch " TORCH_VERSION;

TORCH_LIBRARY(rankseg_d2, m) {
  // value (B, S, M, D); shapes h0, w0, h1, w1, ...; locations (B, Q, M, L, P, 2) in [0, 1];
  // weights (B, Q, M, L, P) -> (B, Q, M*D).
  m.def(
      "ms_deform_attn_forward(Tensor value, SymInt[] shapes, Tensor locations, Tensor weights)"
      " -> Tensor");
  m.def(
      "ms_deform_attn_backward(Tensor grad, Tensor value, SymInt[] shapes, Tensor locations,"
      " Tensor weights) -> (Tensor, Tensor, Tensor)");

  // reference_points (B, Q, L, 2); offsets (B, Q, M, L, P, 2) in pixels of their level;
  // logits (B, Q, M, L, P), softmaxed over levels and points together.
  m.def(
      "ms_deform_attn_fused_forward(Tensor value, SymInt[] shapes, Tensor reference_points,"
      " Tensor offsets, Tensor logits) -> Tensor");
  m.def(
      "ms_deform_attn_fused_backward(Tensor grad, Tensor value, SymInt[] shapes,"
      " Tensor reference_points, Tensor offsets, Tensor logits)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
}
