"""Layers that change the shape: upsampling, padding, pooling, reshaping."""

from nanogan import ops
from nanogan.layers.layer import Plain, same_as_forward
from nanogan.ops.examples import normal


class Upsample(Plain):
    """Repeat every pixel: (N, C, H, W) -> (N, C, H*scale_factor, W*scale_factor).

    scale_factor is keyword-only, because torch's ``Upsample(2)`` makes images of 2 x 2 pixels.
    """

    operation = ops.upsample_forward, ops.upsample_backward
    tangent = same_as_forward

    def __init__(self, *, scale_factor=2):
        super().__init__(scale_factor=scale_factor)


class ReflectionPad2d(Plain):
    """Continue each image by its mirror image: by ``padding`` pixels, or by (left, right, top, bottom)."""

    operation = ops.reflection_pad2d_forward, ops.reflection_pad2d_backward
    tangent = same_as_forward

    def __init__(self, padding):
        super().__init__(padding=padding)


class ZeroPad2d(Plain):
    """Put zeros around each image: ``padding`` pixels, or (left, right, top, bottom)."""

    operation = ops.zero_pad2d_forward, ops.zero_pad2d_backward
    tangent = same_as_forward

    def __init__(self, padding):
        super().__init__(padding=padding)


class MaxPool2d(Plain):
    """The largest value of each window; the stride is kernel_size if not given."""

    operation = ops.max_pool2d_forward, ops.max_pool2d_backward
    no_tangent = "the pixels that win are not kept for it"

    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__(kernel_size=kernel_size, stride=stride, padding=padding)


class AvgPool2d(Plain):
    """The mean of each window; the stride is kernel_size if not given. Zeros of the padding count, as in torch."""

    operation = ops.avg_pool2d_forward, ops.avg_pool2d_backward
    tangent = same_as_forward

    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__(kernel_size=kernel_size, stride=stride, padding=padding)


class AdaptiveAvgPool2d(Plain):
    """Means over output_size bins: (N, C, H, W) -> (N, C, OH, OW); ``AdaptiveAvgPool2d(1)`` is each channel's mean."""

    operation = ops.adaptive_avg_pool2d_forward, ops.adaptive_avg_pool2d_backward
    tangent = same_as_forward

    def __init__(self, output_size):
        super().__init__(output_size=output_size)


class Flatten(Plain):
    """(N, C, H, W) -> (N, C*H*W)."""

    operation = ops.flatten_forward, ops.flatten_backward
    tangent = same_as_forward


class Reshape(Plain):
    """(N, ...) -> (N, *shape): ``Reshape(128, 7, 7)`` or ``Reshape((128, 7, 7))``."""

    operation = ops.reshape_forward, ops.reshape_backward
    tangent = same_as_forward

    def __init__(self, *shape):
        super().__init__(shape=tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)


EXAMPLES = {
    "Upsample": (lambda: Upsample(scale_factor=2), normal(2, 3, 4, 4)),
    "ReflectionPad2d": (lambda: ReflectionPad2d((1, 2, 3, 0)), normal(2, 3, 4, 4)),
    "ZeroPad2d": (lambda: ZeroPad2d((1, 2, 3, 0)), normal(2, 3, 4, 4)),
    "MaxPool2d": (lambda: MaxPool2d(2), normal(2, 3, 4, 4)),
    "AvgPool2d": (lambda: AvgPool2d(2), normal(2, 3, 4, 4)),
    "AdaptiveAvgPool2d": (lambda: AdaptiveAvgPool2d(3), normal(2, 3, 4, 4)),
    "Flatten": (Flatten, normal(2, 3, 4, 4)),
    "Reshape": (lambda: Reshape(3, 2, 2), normal(2, 12)),
}
