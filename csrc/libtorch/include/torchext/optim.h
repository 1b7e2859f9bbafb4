// All optimizers of the package, and the closures that re-centring needs.
#pragma once

#include <torchext/halp.h>
#include <torchext/lp.h>
#include <torchext/optim/full_gradient.h>
#include <torchext/svrg.h>
