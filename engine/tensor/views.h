/* Views of pictures made on a device, and the memory for what it keeps of them. */
#ifndef MIMIC_TENSOR_VIEWS_H
#define MIMIC_TENSOR_VIEWS_H

#include "tensor/tensor_impl.h"

typedef struct mimic_augment_job mimic_augment_job; /* image/plan.h */

mimic_memory mimic_pool_stats(const mimic_device *d);
bool mimic_device_augments(const mimic_device *d); /* whether the next call may be used */
mimic_status mimic_device_augment(mimic_device *d, const mimic_augment_job *job);
/* Bytes that tensors could still get: free on the device or in its pool, within the limit. */
size_t mimic_device_room(const mimic_device *d);
/* Within the device's memory, in the order of its calls. */
mimic_status mimic_device_copy(mimic_device *d, void *dst, const void *src, size_t bytes);

#endif
