// What the compiler's sanitizers are told. In an ordinary build there is nothing to tell.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace epk {

// AddressSanitizer: which bytes of memory that the engine cuts up itself nobody may touch now.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t FENCE = 64;  // bytes after each buffer, besides what rounding adds
inline void forbid(const void *memory, size_t nbytes) { ASAN_POISON_MEMORY_REGION(memory, nbytes); }
inline void permit(const void *memory, size_t nbytes) { ASAN_UNPOISON_MEMORY_REGION(memory, nbytes); }
#else
constexpr size_t FENCE = 0;
inline void forbid(const void *, size_t) {}
inline void permit(const void *, size_t) {}
#endif

// ThreadSanitizer: all threads take part in whatever can be shared, or it would not see what two of them touch.
#if defined(__SANITIZE_THREAD__)
constexpr bool ALL_TAKE_PART = true;
#else
constexpr bool ALL_TAKE_PART = false;
#endif

}  // namespace epk
