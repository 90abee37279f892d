// A call from XLA: arrays, attributes, threads. Over the C interface of XLA's FFI, whose header compiles at once where the
// C++ one takes seconds, and a first start waits for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "xla/ffi/api/c_api.h"

namespace jaxserve {

// An operand or a result; always dense, the last dimension contiguous.
struct Array {
  XLA_FFI_DataType type;
  void* data;
  int64_t rank;
  const int64_t* dims;

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  size_t dim(int64_t axis) const { return static_cast<size_t>(dims[axis < 0 ? rank + axis : axis]); }
};

class Call {
 public:
  explicit Call(XLA_FFI_CallFrame* frame) : frame_(frame) {}

  size_t args() const { return static_cast<size_t>(frame_->args.size); }
  size_t rets() const { return static_cast<size_t>(frame_->rets.size); }
  Array arg(size_t i) const { return array(frame_->args.args[i]); }
  Array ret(size_t i) const { return array(frame_->rets.rets[i]); }

  // A number that was passed as np.int64 or np.float32; `otherwise` where there is none of this name.
  template <class T>
  T attribute(const char* name, T otherwise) const {
    const XLA_FFI_Attrs& all = frame_->attrs;
    for (int64_t i = 0; i < all.size; ++i)
      if (all.types[i] == XLA_FFI_AttrType_SCALAR && std::strlen(name) == all.names[i]->len &&
          std::memcmp(name, all.names[i]->ptr, all.names[i]->len) == 0)
        std::memcpy(&otherwise, static_cast<XLA_FFI_Scalar*>(all.attrs[i])->value, sizeof(T));
    return otherwise;
  }

  // Threads of XLA's pool.
  size_t threads() const {
    int64_t count = 1;
    XLA_FFI_ThreadPool_NumThreads_Args args{XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, nullptr, frame_->ctx,
                                            &count};
    dropped(frame_->api->XLA_FFI_ThreadPool_NumThreads(&args));
    return count < 1 ? 1 : static_cast<size_t>(count);
  }

  // Runs the task on a thread of the pool, some time; false where there is no pool.
  bool schedule(XLA_FFI_Task* task, void* data) const {
    XLA_FFI_ThreadPool_Schedule_Args args{XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, nullptr, frame_->ctx, task,
                                          data};
    return !dropped(frame_->api->XLA_FFI_ThreadPool_Schedule(&args));
  }

  XLA_FFI_Error* refuse(const char* message) const {
    XLA_FFI_Error_Create_Args args{XLA_FFI_Error_Create_Args_STRUCT_SIZE, nullptr, message,
                                   XLA_FFI_Error_Code_INVALID_ARGUMENT};
    return frame_->api->XLA_FFI_Error_Create(&args);
  }

  // Answers the question that registration asks; false for a real call.
  bool describes_itself() const {
    auto* first = frame_->extension_start;  // its type has another name since jaxlib 0.11
    if (first == nullptr || first->type != XLA_FFI_Extension_Metadata) return false;
    XLA_FFI_Metadata* metadata = reinterpret_cast<XLA_FFI_Metadata_Extension*>(first)->metadata;
    metadata->api_version = {XLA_FFI_Api_Version_STRUCT_SIZE, nullptr, XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR};
    metadata->traits = 0;
    return true;
  }

 private:
  static Array array(void* one) {
    auto* buffer = static_cast<XLA_FFI_Buffer*>(one);
    return {buffer->dtype, buffer->data, buffer->rank, buffer->dims};
  }

  bool dropped(XLA_FFI_Error* error) const {
    if (error == nullptr) return false;
    XLA_FFI_Error_Destroy_Args args{XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, nullptr, error};
    frame_->api->XLA_FFI_Error_Destroy(&args);
    return true;
  }

  XLA_FFI_CallFrame* frame_;
};

}  // namespace jaxserve

// Exports `function(const Call&)`, which returns null or an error, under `name`.
#define JAXSERVE_EXPORT(name, function)                                                                       \
  extern "C" __attribute__((visibility("default"))) XLA_FFI_Error* name(XLA_FFI_CallFrame* frame) {            \
    jaxserve::Call call(frame);                                                                                \
    return call.describes_itself() ? nullptr : function(call);                                                 \
  }
