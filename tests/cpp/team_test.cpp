#include "kernels/team.h"

#include <gtest/gtest.h>

#include <chrono>

namespace torchext {
namespace {

class TeamSizes : public ::testing::TestWithParam<int> {};

// Every phase reads what all members wrote in the one before: a member let through early, or a
// value not yet visible, changes the sum.
TEST_P(TeamSizes, EveryPhaseSeesTheOneBefore) {
  const int size = GetParam(), phases = 3000;
  Team team(size);
  std::vector<int64_t> part(static_cast<size_t>(size) * 2, 1);  // two phases' values, plain memory
  std::vector<int64_t> wrong(static_cast<size_t>(size), 0);
  team.run([&](int rank) {
    for (int phase = 0; phase < phases; ++phase) {
      int64_t sum = 0;
      for (int other = 0; other < size; ++other) sum += part[phase % 2 * size + other];
      if (sum != size + int64_t{size} * phase) ++wrong[rank];
      part[(phase + 1) % 2 * size + rank] = 1 + (phase + 1);
      team.barrier(rank);
    }
  });
  for (int rank = 0; rank < size; ++rank) EXPECT_EQ(wrong[rank], 0) << "rank " << rank;
}

// What a member shows: more words than its first cache line holds, and work between both halves.
TEST_P(TeamSizes, WordsAreThereAfterTheBarrier) {
  const int size = GetParam(), words = 40;
  Team team(size, words);
  std::vector<int> wrong(static_cast<size_t>(size), 0);
  team.run([&](int rank) {
    for (int phase = 0; phase < 1000; ++phase) {
      for (int i = 0; i < words; ++i) team.word(rank, i) = static_cast<float>(phase + i + rank);
      team.arrive(rank);
      team.wait(rank);
      for (int i = 0; i < words; ++i) {
        wrong[rank] += team.peak(i) != static_cast<float>(phase + i + size - 1);
        wrong[rank] += team.word(0, i) != static_cast<float>(phase + i);
      }
      team.barrier(rank);
    }
  });
  for (int rank = 0; rank < size; ++rank) EXPECT_EQ(wrong[rank], 0) << "rank " << rank;
}

// One member late by far more than the others spin: they sleep, and are woken.
TEST_P(TeamSizes, WaitsForALateMember) {
  const int size = GetParam();
  Team team(size);
  std::vector<int> seen(static_cast<size_t>(size), 0);
  int value = 0;
  team.run([&](int rank) {
    for (int phase = 1; phase <= 8; ++phase) {
      if (rank == phase % size) {
        std::this_thread::sleep_for(std::chrono::milliseconds(3));
        value = phase;
      }
      team.barrier(rank);
      seen[rank] += value == phase;
      team.barrier(rank);
    }
  });
  for (int rank = 0; rank < size; ++rank) EXPECT_EQ(seen[rank], 8) << "rank " << rank;
}

INSTANTIATE_TEST_SUITE_P(Team, TeamSizes, ::testing::Range(1, 9));

TEST(Team, PartsCoverTheRange) {
  for (const int64_t count : {0, 1, 5, 64, 1001}) {
    for (int size = 1; size <= 8; ++size) {
      EXPECT_EQ(team_part(count, 0, size), 0);
      for (int rank = 0; rank < size; ++rank)
        EXPECT_LE(team_part(count, rank, size), team_part(count, rank + 1, size));
      EXPECT_EQ(team_part(count, size, size), count);
    }
  }
}

}  // namespace
}  // namespace torchext
