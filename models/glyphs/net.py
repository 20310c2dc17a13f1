"""The encoder: `[N, 1, 48, 48]` in 0..1 -> features `[N, 192]`. Convolution, ReLU6, addition, average pool: nothing else."""

from torch import nn

FEATURES = 192


class Residual(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.body = nn.Sequential(conv(c_in, c_out, 3, stride), nn.ReLU6(), conv(c_out, c_out, 3, 1))
        self.shortcut = nn.Identity() if (c_in, stride) == (c_out, 1) else conv(c_in, c_out, 1, stride)
        self.out = nn.ReLU6()

    def forward(self, x):
        return self.out(self.body(x) + self.shortcut(x))


def conv(c_in, c_out, kernel, stride):
    return nn.Sequential(nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(c_out))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(1, 24, 5, 2), nn.ReLU6())  # 24 x 24
        self.blocks = nn.Sequential(
            Residual(24, 24, 1),
            Residual(24, 64, 2),  # 12 x 12
            Residual(64, 64, 1),
            Residual(64, 128, 2),  # 6 x 6
        )
        # Linear, so that features have both signs and a zero mean is possible.
        self.last = conv(128, FEATURES, 1, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        return self.pool(self.last(self.blocks(self.stem(x)))).flatten(1)
