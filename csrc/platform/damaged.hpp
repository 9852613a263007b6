// For what only a damaged file can say.
#pragma once

#include <stdexcept>
#include <string>

namespace lateint {

[[noreturn]] inline void damaged(const std::string& what) { throw std::runtime_error("the index is damaged: " + what); }

}  // namespace lateint
